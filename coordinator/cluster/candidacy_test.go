package cluster

import (
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/history"
)

// lonely is a stream layer over which nobody is reached.
type lonely struct{ net.Listener }

func (lonely) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	return nil, errors.New("nobody is there")
}

// What frees a candidate that believes in a leader: it hears of that leader, follows,
// gives it up, and stands for election again, knowing none.
func TestAReminderLetsACandidateBeginAgain(t *testing.T) {
	const patience = time.Minute
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	dir := t.TempDir()
	journal, err := history.Create(history.Config{Path: filepath.Join(dir, "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer func() { require.NoError(t, journal.Close()) }()
	transport := NewTransport(lonely{listener}, slog.New(slog.DiscardHandler))
	config := Config{
		Dir: dir, NodeID: "here", Journal: journal, Log: slog.New(slog.DiscardHandler), Transport: transport, ElectionTimeout: 50 * time.Millisecond,
	}
	var voters []raft.Server
	for _, id := range []raft.ServerID{"here", "there", "elsewhere"} {
		voters = append(voters, raft.Server{ID: id, Address: raft.ServerAddress(id)})
	}
	require.NoError(t, Bootstrap(config, voters))
	n, err := Open(config)
	require.NoError(t, err)
	defer func() { require.NoError(t, n.Close()) }()

	alone := func() bool {
		_, leader := n.raft.LeaderWithID()
		return n.raft.State() == raft.Candidate && leader == ""
	}
	require.Eventually(t, alone, patience, time.Millisecond)
	heard := make(chan struct{})
	n.raft.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		if leader, ok := o.Data.(raft.LeaderObservation); ok && leader.LeaderID == "there" {
			select {
			case <-heard:
			default:
				close(heard)
			}
		}
		return false
	}))
	// Its term grows all the time, and what is of an older one is passed over.
	require.Eventually(t, func() bool {
		transport.remind(t.Context(), "there", "there", n.raft.CurrentTerm())
		select {
		case <-heard:
			return true
		default:
			return false
		}
	}, patience, time.Millisecond)
	require.Eventually(t, alone, patience, time.Millisecond)
}
