package cluster

import (
	"bytes"
	"io"
)

// memorySink is a raft.SnapshotSink in memory.
type memorySink struct {
	bytes.Buffer
	closed, cancelled bool
}

func (s *memorySink) ID() string    { return "memory" }
func (s *memorySink) Close() error  { s.closed = true; return nil }
func (s *memorySink) Cancel() error { s.cancelled = true; return nil }

func (s *memorySink) reader() io.ReadCloser { return io.NopCloser(bytes.NewReader(s.Bytes())) }
