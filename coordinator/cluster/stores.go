package cluster

import (
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/fleet"
)

// logStore is the log as Raft sees it. It measures how long entries take to be
// synced, and notices when the end of the log is cut off.
type logStore struct {
	raft.LogStore
	stored  *histogram
	members *configurations
}

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (s *logStore) StoreLogs(entries []*raft.Log) error {
	began := time.Now()
	err := s.LogStore.StoreLogs(entries)
	s.stored.add(time.Since(began))
	return err
}

// DeleteRange implements raft.LogStore.
func (s *logStore) DeleteRange(first, last uint64) error {
	if end, err := s.LogStore.LastIndex(); err == nil && last >= end {
		s.members.cut(first)
	}
	return s.LogStore.DeleteRange(first, last)
}

// snapshotStore gives snapshots that know what they are when the machine
// restores them: Raft hands over their content alone.
type snapshotStore struct {
	raft.SnapshotStore
}

// Open implements raft.SnapshotStore.
func (s snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, content, err := s.SnapshotStore.Open(id)
	if err != nil {
		return meta, content, err
	}
	return meta, &snapshotContent{ReadCloser: content, meta: meta}, nil
}

type snapshotContent struct {
	io.ReadCloser
	meta *raft.SnapshotMeta
}

// metaOf is what a snapshot is, nil if its content does not come from a
// snapshotStore.
func metaOf(content io.ReadCloser) *raft.SnapshotMeta {
	for {
		switch c := content.(type) {
		case *snapshotContent:
			return c.meta
		case raft.ReadCloserWrapper:
			content = c.WrappedReadCloser()
		default:
			return nil
		}
	}
}

// tailConfiguration is the newest configuration in the log behind an index.
func tailConfiguration(logs raft.LogStore, behind uint64) (configuration, error) {
	first, err := logs.FirstIndex()
	if err != nil {
		return configuration{}, err
	}
	last, err := logs.LastIndex()
	if err != nil {
		return configuration{}, err
	}
	for index := last; index > 0 && index >= first && index > behind; index-- {
		var entry raft.Log
		if err := logs.GetLog(index, &entry); err != nil {
			return configuration{}, err
		}
		if entry.Type == raft.LogConfiguration {
			return configuration{index: index, servers: raft.DecodeConfiguration(entry.Data).Servers}, nil
		}
	}
	return configuration{}, nil
}

// tellKeys tells the keys of nodes that the log makes known behind an index and up
// to another one, in order.
func tellKeys(logs raft.LogStore, behind, last uint64, tell func(keys map[string]string, at uint64)) error {
	first, err := logs.FirstIndex()
	if err != nil {
		return err
	}
	for index := max(first, behind+1); index <= last; index++ {
		var entry raft.Log
		if err := logs.GetLog(index, &entry); err != nil {
			return err
		}
		if entry.Type == raft.LogCommand {
			tell(fleet.NodeKeys(entry.Data), index)
		}
	}
	return nil
}
