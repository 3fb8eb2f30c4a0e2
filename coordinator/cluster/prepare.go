package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/shared/durable"
)

// maxJoining bounds each of the files that tell a node that joins what to expect.
const maxJoining = 64 << 10

func (c Config) joiningFile() string { return filepath.Join(c.raftDir(), "joining.json") }

// admittedFile is apart from the members, whose list earlier versions read.
func (c Config) admittedFile() string { return filepath.Join(c.raftDir(), "admitted.json") }

// admission is what the second file holds.
type admission struct {
	Configuration uint64 `json:"configuration"`
}

// Prepare makes the state of a node that joins a cluster: an empty log, and the
// members as they were told to it, from which it takes calls until its log has
// a configuration. keys are the fingerprints of the members' keys by their ids, as
// far as they were told. Such a node elects nobody, itself least of all; it waits
// until a leader that has added it sends the log. What was said of [Bootstrap]
// about crashes and ErrStateExists holds here too.
//
// admitted is the index of the configuration that the node became a member with, or
// of a later one; 0 if it was not told. Below it the node stands for no election,
// whatever an older configuration says of its id.
func Prepare(c Config, members []raft.Server, keys map[string]string, admitted uint64) error {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return err
	}
	if len(members) == 0 {
		return errors.New("join: there are no members to join")
	}
	for _, member := range members {
		if member.ID == "" || member.Address == "" {
			return fmt.Errorf("join: the member with id %q and address %q has one missing", member.ID, member.Address)
		}
	}
	return c.make("join", func(fresh Config) (err error) {
		if err := os.MkdirAll(fresh.raftDir(), 0o700); err != nil {
			return err
		}
		store, _, err := fresh.openStores()
		if err != nil {
			return err
		}
		if err := store.Close(); err != nil {
			return err
		}
		told := toWire(members)
		for i, m := range told {
			told[i].Key = keys[m.ID]
		}
		list, err := json.Marshal(told)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(fresh.joiningFile(), list, 0o600); err != nil || admitted == 0 {
			return err
		}
		note, err := json.Marshal(admission{Configuration: admitted})
		if err != nil {
			return err
		}
		return durable.WriteFile(fresh.admittedFile(), note, 0o600)
	})
}

// readAdmitted reads the index that Prepare was told; 0 if it was not.
func readAdmitted(file string) (uint64, error) {
	data, err := readSmall(file)
	if err != nil || data == nil {
		return 0, wrap("read what this node was admitted with", err)
	}
	var note admission
	if err := json.Unmarshal(data, &note); err != nil {
		return 0, fmt.Errorf("read what this node was admitted with from %s: %w", file, err)
	}
	return note.Configuration, nil
}

// readJoining reads what Prepare has written; nothing if it did not.
func readJoining(file string) (members []wireMember, err error) {
	data, err := readSmall(file)
	if err != nil || data == nil {
		return nil, wrap("read the members to join", err)
	}
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, fmt.Errorf("read the members to join from %s: %w", file, err)
	}
	return members, nil
}

// readSmall reads a file of Prepare; nothing if there is none.
func readSmall(file string) ([]byte, error) {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Size() > maxJoining:
		return nil, fmt.Errorf("%s has %d bytes, at most %d are expected", file, info.Size(), maxJoining)
	}
	return os.ReadFile(file)
}
