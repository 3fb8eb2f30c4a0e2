package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/durable"
)

// Files of the data directory, besides those that package server names.
const (
	raftDir     = "raft"
	journalFile = "journal.db"
	nodeIDFile  = config.NodeIDFile
	sealKeyFile = "seal.key"
	// intentFile says that a first start is under way, and of which kind. It is
	// there before anything else is made, and goes when there is Raft state, on
	// which the rest hangs: the steps after that are continued by server.Bootstrap.
	intentFile = "first-start"
)

// dataFiles are what tells a data directory that is in use from one that is not.
var dataFiles = []string{raftDir, journalFile, nodeIDFile, sealKeyFile, peer.Directory, server.RootFile, server.AdminTokenFile}

// A beginning is how a node comes to its state.
type beginning string

const (
	restarts beginning = "restart" // the state is there
	founds   beginning = "found"   // a cluster of this node alone
	joins    beginning = "join"    // a cluster that is there
)

// errIncomplete says that a data directory has lost a part of what it had.
var errIncomplete = errors.New("this is the data directory of a coordinator and not all of it is here: restore the whole directory from a backup; " +
	"only to found a new CA, which no enrolled host trusts, move the directory away and start again")

// begin says how this start begins, and puts down that it is a first one. wanted
// is what is to be done with an empty directory. A first start that was cut off
// goes on as what it was. A directory that has lost what the CA and the fleet are
// kept in is refused as it is: a new CA in its place would cut off every host.
func begin(s *config.Settings, wanted beginning) (beginning, error) {
	// In the middle of a recovery the Raft state may be under another name.
	if _, pending, err := cluster.PendingRecovery(s.DataDir); err != nil {
		return "", err
	} else if pending {
		return "", fmt.Errorf("data directory %s: %w", s.DataDir, cluster.ErrRecovering)
	}
	if err := checkLeft(s.DataDir); err != nil {
		return "", err
	}
	there, err := present(s.DataDir)
	if err != nil {
		return "", err
	}
	intent := filepath.Join(s.DataDir, intentFile)
	begun := slices.Contains(there, intentFile)
	if slices.Contains(there, raftDir) {
		needed := []string{journalFile}
		if s.NodeID == "" {
			needed = append(needed, nodeIDFile)
		}
		if err := incomplete(s.DataDir, there, needed); err != nil {
			return "", err
		}
		if begun {
			return restarts, durable.Remove(intent)
		}
		return restarts, nil
	}
	if len(there) == 0 {
		return wanted, durable.WriteFile(intent, []byte(wanted+"\n"), 0o600)
	}
	// What a first start makes before there is Raft state.
	made := []string{intentFile, nodeIDFile, journalFile, sealKeyFile, peer.Directory}
	if !begun || slices.ContainsFunc(there, func(name string) bool { return !slices.Contains(made, name) }) {
		return "", incomplete(s.DataDir, there, []string{raftDir, journalFile, nodeIDFile})
	}
	return wanted, sameIntent(s.DataDir, intent, wanted)
}

// present lists what there is of a coordinator in a directory.
func present(dir string) (there []string, err error) {
	for _, name := range append([]string{intentFile}, dataFiles...) {
		switch _, err := os.Lstat(filepath.Join(dir, name)); {
		case err == nil:
			there = append(there, name)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("data directory: %w", err)
		}
	}
	return there, nil
}

// sameIntent refuses to go on with a first start of another kind: what the one
// has made is of no use to the other.
func sameIntent(dir, intent string, wanted beginning) error {
	text, err := os.ReadFile(intent)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	begun := beginning(bytes.TrimSpace(text))
	if begun == "" {
		begun = founds // by a version that knew nothing else
	}
	switch begun {
	case wanted:
		return nil
	case joins:
		return fmt.Errorf("data directory %s: a join was begun here and not finished: give the join token again (cluster.join_token, or the verb join), "+
			"or empty the directory to found a cluster of this node alone", dir)
	default:
		return fmt.Errorf("data directory %s: the founding of a cluster was begun here and not finished: start without a join token to go on with it, "+
			"or empty the directory to join another cluster", dir)
	}
}

// incomplete is an error if any of what is needed is not there.
func incomplete(dir string, there, needed []string) error {
	missing := slices.DeleteFunc(needed, func(name string) bool { return slices.Contains(there, name) })
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("data directory %s: %s missing, and there are %s: %w", dir, strings.Join(missing, ", "), strings.Join(there, ", "), errIncomplete)
}
