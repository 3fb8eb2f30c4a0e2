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

// maxJoining bounds the file that tells a node that joins who is there.
const maxJoining = 64 << 10

func (c Config) joiningFile() string { return filepath.Join(c.raftDir(), "joining.json") }

// Prepare makes the state of a node that joins a cluster: an empty log, and the
// members as they were told to it, from which it takes calls until its log has
// a configuration. keys are the fingerprints of the members' keys by their ids, as
// far as they were told. Such a node elects nobody, itself least of all; it waits
// until a leader that has added it sends the log. What was said of [Bootstrap]
// about crashes and ErrStateExists holds here too.
//
// The id must be new to the cluster: a node that has lost its disk has lost its
// votes with it, and comes back under another id.
func Prepare(c Config, members []raft.Server, keys map[string]string) error {
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
		return durable.WriteFile(fresh.joiningFile(), list, 0o600)
	})
}

// readJoining reads what Prepare has written; nothing if it did not.
func readJoining(file string) (members []wireMember, err error) {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the members to join: %w", err)
	case info.Size() > maxJoining:
		return nil, fmt.Errorf("read the members to join: %s has %d bytes, at most %d are expected", file, info.Size(), maxJoining)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the members to join: %w", err)
	}
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, fmt.Errorf("read the members to join from %s: %w", file, err)
	}
	return members, nil
}
