package cluster

import (
	"context"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// A configuration is who belongs to the cluster, as of a log entry.
type configuration struct {
	index   uint64 // of the entry; 0 for none
	servers []raft.Server
}

// configurations is what this node knows of them. Raft tells the newest one of
// its log, without its index, which a change that compares and swaps needs.
type configurations struct {
	mu sync.Mutex
	// committed is the newest that is known to be committed.
	committed configuration
	// tail was the newest in the log when it was opened; it may never have been
	// committed, and then a leader has it cut off.
	tail configuration
	// learned is the newest that another member told, for the time in which this
	// node's log is behind.
	learned configuration
	// joining is what a node was told that joins, until its log has a
	// configuration.
	joining []raft.Server
	// keys are those of members as they were heard of, by the members' ids.
	keys map[string]heardKey
	// moved is where members say that they are now, until the next configuration:
	// without a leader the configuration cannot follow, and without reaching them
	// there may be no leader.
	moved    map[raft.ServerID]raft.ServerAddress
	watchers []func([]raft.Server) // added before the node runs; Raft may tell of configurations by then
	changed  chan struct{}         // closed at the next committed one, nil if nobody waits
}

// store takes note of a committed configuration.
func (c *configurations) store(index uint64, servers []raft.Server) {
	c.note(index, servers, false)
}

// install takes note of the configuration of a snapshot that a leader sent. It
// takes the place of whatever the log had, in Raft too: the log may never be cut
// off at an entry that the snapshot is ahead of.
func (c *configurations) install(index uint64, servers []raft.Server) {
	c.note(index, servers, true)
}

func (c *configurations) note(index uint64, servers []raft.Server, installed bool) {
	servers = slices.Clone(servers)
	c.mu.Lock()
	if installed {
		c.tail = configuration{}
	}
	if index < c.committed.index {
		c.mu.Unlock()
		return
	}
	if index > c.committed.index {
		clear(c.moved)
	}
	c.committed = configuration{index: index, servers: servers}
	replayed := index < c.tail.index // at the start, on the way to what was known before
	if !replayed {
		c.tail = configuration{}
	}
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
	watchers := slices.Clone(c.watchers)
	c.mu.Unlock()
	if replayed {
		return
	}
	for _, watch := range watchers {
		watch(slices.Clone(servers))
	}
}

// watch adds a function that is told each committed configuration.
func (c *configurations) watch(fn func([]raft.Server)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers = append(c.watchers, fn)
}

// wait returns when a configuration at least as new is committed, or ctx is done.
func (c *configurations) wait(ctx context.Context, index uint64) {
	for {
		c.mu.Lock()
		if c.committed.index >= index {
			c.mu.Unlock()
			return
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// move takes note of where a member says that it is.
func (c *configurations) move(id raft.ServerID, address raft.ServerAddress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moved == nil {
		c.moved = map[raft.ServerID]raft.ServerAddress{}
	}
	c.moved[id] = address
}

// movedTo is where a member says that it is, if that is not what the
// configuration has.
func (c *configurations) movedTo(id raft.ServerID) (raft.ServerAddress, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	address, ok := c.moved[id]
	return address, ok
}

// cut takes note that the log was cut off from an index on.
func (c *configurations) cut(from uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tail.index >= from {
		c.tail = configuration{}
	}
}

// learn takes note of what another member says, and reports whether it is news.
func (c *configurations) learn(told configuration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if told.index <= max(c.newest().index, c.learned.index) {
		return false
	}
	c.learned = told
	return true
}

// A heardKey is the fingerprint of a member's key, by the state of an index: 0 for
// what a node was told when it joined.
type heardKey struct {
	fingerprint string
	at          uint64
}

// hear takes note of the keys of members, as of an index. The newest count.
func (c *configurations) hear(keys map[string]string, at uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, fingerprint := range keys {
		if before, ok := c.keys[id]; ok && before.at > at {
			continue
		}
		if c.keys == nil {
			c.keys = map[string]heardKey{}
		}
		c.keys[id] = heardKey{fingerprint, at}
	}
}

// key is the newest key of a member that was heard of.
func (c *configurations) key(id string) (heardKey, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key, ok := c.keys[id]
	return key, ok
}

// index is that of the newest configuration of this node's own log.
func (c *configurations) index() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.newest().index
}

func (c *configurations) newest() configuration {
	if c.tail.index > c.committed.index {
		return c.tail
	}
	return c.committed
}

// without reports whether others have told of a configuration that is newer than
// those of this node's log, and that a node is not in.
func (c *configurations) without(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.learned.index > c.newest().index && serverOf(c.learned.servers, id) == nil
}

// known are the members: by own, the newest configuration of this node's log, or
// by what others have told if that is newer.
func (c *configurations) known(own []raft.Server) []raft.Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.learned.index > c.newest().index:
		own = c.learned.servers
	case len(own) == 0:
		own = c.joining
	}
	if len(c.moved) == 0 {
		return own
	}
	own = slices.Clone(own)
	for i, s := range own {
		if address, ok := c.moved[s.ID]; ok {
			own[i].Address = address
		}
	}
	return own
}
