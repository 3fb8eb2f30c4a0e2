package daemon

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/durable"
)

// clusterState is everything of the coordinator that is on disk.
type clusterState struct {
	journal *history.Journal
	node    *cluster.Node
}

// openState opens, and at the first start creates, the data directory.
func openState(s *config.Settings, log *slog.Logger) (_ *clusterState, err error) {
	if err := durable.EnsurePrivateDir(s.DataDir); err != nil {
		return nil, err
	}
	fresh, err := firstStart(s)
	if err != nil {
		return nil, err
	}
	id, err := nodeID(s)
	if err != nil {
		return nil, err
	}
	st := new(clusterState)
	defer func() {
		if err != nil {
			st.close(log)
		}
	}()
	journal := history.Config{
		Path: filepath.Join(s.DataDir, journalFile), Log: log.With("part", "journal"),
		MaxAge: s.Journal.Retention, MaxBytes: s.Journal.MaxBytes,
	}
	if fresh {
		st.journal, err = history.Create(journal)
	}
	if !fresh || errors.Is(err, history.ErrExists) {
		st.journal, err = history.Open(journal)
	}
	if err != nil {
		return nil, err
	}
	node := cluster.Config{Dir: s.DataDir, NodeID: id, Journal: st.journal, Log: log.With("part", "cluster")}
	if fresh {
		// Facts come after the Raft state: there is none yet that they could be of.
		if through := st.journal.Through(); through > 0 {
			return nil, fmt.Errorf("%s: the journal ends at log entry %d, and there is no log: %w", journal.Path, through, cluster.ErrJournalAhead)
		}
		log.Info("first start: a cluster of this node alone is made", "node_id", id)
		if err := cluster.Bootstrap(node, nil); err != nil {
			return nil, err
		}
		if err := durable.Remove(filepath.Join(s.DataDir, intentFile)); err != nil {
			return nil, fmt.Errorf("first start: %w", err)
		}
	}
	st.node, err = cluster.Open(node)
	if err != nil {
		return nil, err
	}
	// The open log is the lock of this directory: what a killed process was
	// writing can be nobody else's.
	if _, err := durable.RemoveStaleTemp(s.DataDir); err != nil {
		return nil, err
	}
	return st, nil
}

// close releases what Run did not.
func (st *clusterState) close(log *slog.Logger) {
	if st.node != nil {
		if err := st.node.Close(); err != nil {
			log.Error("cluster state did not close", "err", err)
		}
	}
	if st.journal != nil {
		if err := st.journal.Close(); err != nil {
			log.Error("journal did not close", "err", err)
		}
	}
}

// nodeID is this node's name: the one configured, else the one that the first
// start made. The name in the data directory counts, since Raft knows it.
func nodeID(s *config.Settings) (string, error) {
	path := filepath.Join(s.DataDir, nodeIDFile)
	text, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(text))
		if s.NodeID != "" && s.NodeID != id {
			return "", fmt.Errorf("node_id is %q, but this data directory belongs to the node %q (%s): leave node_id out, or use an empty data directory", s.NodeID, id, path)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("node id: %w", err)
	}
	id := s.NodeID
	if id == "" {
		id = "node-" + strings.ToLower(rand.Text()[:10])
	}
	if err := durable.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("node id: %w", err)
	}
	return id, nil
}
