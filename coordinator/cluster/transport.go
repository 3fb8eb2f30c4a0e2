package cluster

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// streamTimeout bounds each message between nodes, and for a snapshot each
	// piece of raft.DefaultTimeoutScale octets: a peer that has vanished is noticed
	// after as long.
	streamTimeout = 5 * time.Second
	// streamPool is how many idle streams are kept to each node.
	streamPool = 3
	// streamEntries is how many messages with entries are under way to a node. More
	// than one makes Raft send them through a pipeline that waits for ever when the
	// node refuses one, say because its disk is full: the leader goes on with its
	// heartbeats, and sends that node nothing more until it is started anew.
	streamEntries = 1
)

// Transport carries Raft's messages over streams between nodes.
type Transport struct {
	*raft.NetworkTransport
	messages chan raft.RPC
	closed   chan struct{}
	once     sync.Once
	passing  sync.WaitGroup
	log      *slog.Logger
	// moved gives the address of a member that has told of another one than Raft's
	// configuration has; nil before a node uses the transport.
	moved atomic.Pointer[func(id raft.ServerID) (raft.ServerAddress, bool)]
	// configured is a member's address in Raft's newest configuration; nil before a
	// node uses the transport.
	configured atomic.Pointer[func(id raft.ServerID) (raft.ServerAddress, bool)]
	// stored is told what a node has stored; nil before a node uses the transport.
	stored atomic.Pointer[func(id raft.ServerID, term, index uint64)]
	// campaign is how candidates ask again; nil before a node uses the transport.
	campaign atomic.Pointer[campaign]
	newest   newestTerm
}

// NewTransport makes a transport. Close ends it.
func NewTransport(streams raft.StreamLayer, log *slog.Logger) *Transport {
	t := &Transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: streams, MaxPool: streamPool, Timeout: streamTimeout, MaxRPCsInFlight: streamEntries,
			MsgpackUseNewTimeFormat: true, Logger: newRaftLogger(log),
		}),
		messages: make(chan raft.RPC), closed: make(chan struct{}), log: log,
	}
	t.passing.Go(t.pass)
	return t
}

// to is where a member is reached.
func (t *Transport) to(id raft.ServerID, target raft.ServerAddress) raft.ServerAddress {
	if moved := t.moved.Load(); moved != nil {
		if address, ok := (*moved)(id); ok {
			return address
		}
	}
	return target
}

// AppendEntries implements raft.Transport.
func (t *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := t.NetworkTransport.AppendEntries(id, t.to(id, target), args, resp)
	if err == nil && len(args.Entries) > 0 && t.outdated(id, target) {
		return errReconfigured
	}
	if stored := t.stored.Load(); stored != nil && err == nil && resp.Success && len(args.Entries) > 0 {
		(*stored)(id, args.Term, args.Entries[len(args.Entries)-1].Index)
	}
	return err
}

// errReconfigured ends a message during which the member got another address. Raft
// sends it again, to that one.
var errReconfigured = errors.New("the member has another address since")

// outdated reports whether Raft's newest configuration has another address of a member
// than the one that it gave. Raft reads the member once more after a message with
// entries, without the lock under which it then changes the address.
func (t *Transport) outdated(id raft.ServerID, target raft.ServerAddress) bool {
	configured := t.configured.Load()
	if configured == nil {
		return false
	}
	address, ok := (*configured)(id)
	return ok && address != target
}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.NetworkTransport.RequestVote(id, t.to(id, target), args, resp)
}

// InstallSnapshot implements raft.Transport.
func (t *Transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.NetworkTransport.InstallSnapshot(id, t.to(id, target), args, resp, data)
}

// TimeoutNow implements raft.Transport.
func (t *Transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.NetworkTransport.TimeoutNow(id, t.to(id, target), args, resp)
}

// Consumer implements raft.Transport.
func (t *Transport) Consumer() <-chan raft.RPC { return t.messages }

// pass hands on what comes from the other nodes.
func (t *Transport) pass() {
	for {
		select {
		case message := <-t.NetworkTransport.Consumer():
			if ask, ok := message.Command.(*raft.TimeoutNowRequest); ok {
				t.log.Info("the leader asks this node to take over", "leader", string(ask.ID))
			}
			t.newest.note(message)
			t.say(message)
		case <-t.closed:
			return
		}
	}
}

func (t *Transport) say(message raft.RPC) {
	select {
	case t.messages <- message:
	case <-t.closed:
	}
}

// urge has the node stand for election at once. A node that has the only vote
// would else wait first, for a leader that nobody else can be. The message is the
// one by which a leader hands over.
func (t *Transport) urge(id string, address raft.ServerAddress) {
	t.passing.Go(func() {
		t.say(raft.RPC{
			Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
				ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: t.EncodePeer(raft.ServerID(id), address),
			}},
			RespChan: make(chan raft.RPCResponse, 1),
		})
	})
}

// Close implements raft.WithClose.
func (t *Transport) Close() error {
	t.once.Do(func() { close(t.closed) })
	t.passing.Wait()
	return t.NetworkTransport.Close()
}
