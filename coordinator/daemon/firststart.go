package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/durable"
)

// Files of the data directory, besides those that package server names.
const (
	raftDir     = "raft"
	journalFile = "journal.db"
	nodeIDFile  = "node-id"
	sealKeyFile = "seal.key"
	// intentFile says that a first start is under way. It is there before
	// anything else is made, and goes when there is Raft state, on which the
	// rest hangs: the steps after that are continued by server.Bootstrap.
	intentFile = "first-start"
)

// dataFiles are what tells a data directory that is in use from one that is not.
var dataFiles = []string{raftDir, journalFile, nodeIDFile, sealKeyFile, server.RootFile, server.AdminTokenFile}

// errIncomplete says that a data directory has lost a part of what it had.
var errIncomplete = errors.New("this is the data directory of a coordinator and not all of it is here: restore the whole directory from a backup; " +
	"only to found a new CA, which no enrolled host trusts, move the directory away and start again")

// firstStart reports whether this is the first start, or goes on with one that
// was cut off. A directory that has lost what the CA and the fleet are kept in
// is refused as it is: a new CA in its place would cut off every host.
func firstStart(s *config.Settings) (bool, error) {
	var there []string
	for _, name := range append([]string{intentFile}, dataFiles...) {
		switch _, err := os.Lstat(filepath.Join(s.DataDir, name)); {
		case err == nil:
			there = append(there, name)
		case !errors.Is(err, fs.ErrNotExist):
			return false, fmt.Errorf("data directory: %w", err)
		}
	}
	intent := filepath.Join(s.DataDir, intentFile)
	begun := slices.Contains(there, intentFile)
	if slices.Contains(there, raftDir) {
		needed := []string{journalFile}
		if s.NodeID == "" {
			needed = append(needed, nodeIDFile)
		}
		if err := incomplete(s.DataDir, there, needed); err != nil {
			return false, err
		}
		if begun {
			return false, durable.Remove(intent)
		}
		return false, nil
	}
	if len(there) == 0 {
		return true, durable.WriteFile(intent, nil, 0o600)
	}
	// What a first start makes before there is Raft state.
	made := []string{intentFile, nodeIDFile, journalFile}
	if begun && !slices.ContainsFunc(there, func(name string) bool { return !slices.Contains(made, name) }) {
		return true, nil
	}
	return false, incomplete(s.DataDir, there, []string{raftDir, journalFile, nodeIDFile})
}

// incomplete is an error if any of what is needed is not there.
func incomplete(dir string, there, needed []string) error {
	missing := slices.DeleteFunc(needed, func(name string) bool { return slices.Contains(there, name) })
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("data directory %s: %s missing, and there are %s: %w", dir, strings.Join(missing, ", "), strings.Join(there, ", "), errIncomplete)
}
