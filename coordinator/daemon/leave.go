package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/durable"
)

// leftFile says that the node of a data directory has left its cluster.
const leftFile = "left.json"

// leftBehind is what is put aside of a node that has left, before it joins again.
// Its name stays, and so do the snapshot files.
var leftBehind = []string{raftDir, journalFile, peer.Directory, sealKeyFile, server.RootFile, server.AdminTokenFile}

// LeftError says that the node of a data directory has left its cluster.
type LeftError struct {
	DataDir string    `json:"-"`
	NodeID  string    `json:"node_id"`
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"` // who asked for it
}

// Error implements error.
func (e *LeftError) Error() string {
	return fmt.Sprintf("node %s has left its cluster (on %s, by %s) and does not start any more; what it had is still in %s, the seal key too. "+
		"To let it join again, make a token with \"certctl cluster join-token create\" and give it to \"certctl-coordinator join --put-aside\"; "+
		"if it is not to come back, delete the directory", e.NodeID, e.Time.Format(time.RFC3339), e.Actor, e.DataDir)
}

// aside is where the state of before is kept.
func (e *LeftError) aside() string {
	return filepath.Join(e.DataDir, "left-"+e.Time.UTC().Format("20060102T150405Z"))
}

// checkLeft returns a *LeftError if the node of a data directory has left.
func checkLeft(dataDir string) error {
	path := filepath.Join(dataDir, leftFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	left := &LeftError{DataDir: dataDir}
	if err := json.Unmarshal(text, left); err != nil || left.NodeID == "" || left.Time.IsZero() {
		return fmt.Errorf("%s cannot be read (%v): the node of this directory has left its cluster, and does not start; "+
			"to let it join again, move the directory away and join with an empty one", path, err)
	}
	return left
}

// PutAside makes room in the data directory of a node that has left, for joining
// again: what it had goes to a folder of its own beside the new state, which is
// returned. Each step can be repeated. It returns "" if the directory is not that of a
// node that has left.
func PutAside(dataDir string) (aside string, err error) {
	err = checkLeft(dataDir)
	left, is := errors.AsType[*LeftError](err)
	if !is {
		return "", err
	}
	aside = left.aside()
	if err := durable.EnsurePrivateDir(aside); err != nil {
		return "", err
	}
	for _, name := range leftBehind {
		switch _, err := os.Lstat(filepath.Join(dataDir, name)); {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", fmt.Errorf("data directory: %w", err)
		}
		if err := durable.Rename(filepath.Join(dataDir, name), filepath.Join(aside, name)); err != nil {
			return "", fmt.Errorf("put aside what the node had: %w", err)
		}
	}
	// What remains is the beginning of a join.
	if err := durable.WriteFile(filepath.Join(dataDir, intentFile), []byte(joins+"\n"), 0o600); err != nil {
		return "", err
	}
	if err := durable.Rename(filepath.Join(dataDir, leftFile), filepath.Join(aside, leftFile)); err != nil {
		return "", fmt.Errorf("put aside what the node had: %w", err)
	}
	return aside, nil
}

// leave takes the node out of the cluster and ends the program's run. A crash in
// between leaves a node that finds out that it was removed.
func (d *Daemon) leave(ctx context.Context, prevIndex uint64, actor string) error {
	if err := d.node.Leave(ctx, prevIndex, actor); err != nil {
		return err
	}
	left := &LeftError{DataDir: d.config.Settings.DataDir, NodeID: d.NodeID(), Time: time.Now().UTC().Truncate(time.Second), Actor: actor}
	text, err := json.MarshalIndent(left, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(left.DataDir, leftFile), text, 0o600); err != nil {
		return fmt.Errorf("node %s has left the cluster, and that could not be noted: do not start it any more: %w", left.NodeID, err)
	}
	d.log.Info("this node has left the cluster and ends", "actor", actor)
	d.left.Store(left)
	if end := d.end.Load(); end != nil {
		(*end)(left)
	}
	return nil
}

// departing is what the API is given of the node's leave.
type departing struct{ daemon *Daemon }

// Departure says what a leave would mean.
func (l departing) Departure(ctx context.Context) *cluster.Departure {
	return l.daemon.node.Departure(ctx)
}

// Leave takes the node out of the cluster, and lets the program end.
func (l departing) Leave(ctx context.Context, prevIndex uint64, actor string) error {
	return l.daemon.leave(ctx, prevIndex, actor)
}
