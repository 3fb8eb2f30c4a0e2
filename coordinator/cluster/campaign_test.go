package cluster

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type dialling struct{ net.Listener }

func (dialling) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(address), timeout)
}

func newTestTransport(t *testing.T) *Transport {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	transport := NewTransport(dialling{listener}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { assert.NoError(t, transport.Close()) })
	return transport
}

// A node that is asked for its vote before it has noticed that the leader is gone
// says no at first. It is asked again while that can lead to something.
func TestACandidateAsksAgain(t *testing.T) {
	const term = 5
	no, yes := raft.RequestPreVoteResponse{Term: term - 1}, raft.RequestPreVoteResponse{Term: term, Granted: true}
	later := raft.RequestPreVoteResponse{Term: term + 1}
	ended, end := context.WithCancel(t.Context())
	end()
	patient := &campaign{life: t.Context(), patience: time.Minute, pause: time.Millisecond}
	for name, c := range map[string]struct {
		campaign *campaign
		answers  []raft.RequestPreVoteResponse
		heard    raft.RPC // before it asks again
		asked    int
		granted  bool
	}{
		"yes":                      {patient, []raft.RequestPreVoteResponse{yes}, raft.RPC{}, 1, true},
		"yes in the end":           {patient, []raft.RequestPreVoteResponse{no, no, no, yes}, raft.RPC{}, 4, true},
		"the term is over":         {patient, []raft.RequestPreVoteResponse{no, later, yes}, raft.RPC{}, 2, false},
		"another candidate":        {patient, []raft.RequestPreVoteResponse{no, yes}, raft.RPC{Command: &raft.RequestVoteRequest{Term: term}}, 1, false},
		"another leader":           {patient, []raft.RequestPreVoteResponse{no, yes}, raft.RPC{Command: &raft.AppendEntriesRequest{Term: term}}, 1, false},
		"the leader of before":     {patient, []raft.RequestPreVoteResponse{no, yes}, raft.RPC{Command: &raft.AppendEntriesRequest{Term: term - 1}}, 2, true},
		"the node stops":           {&campaign{life: ended, patience: time.Minute, pause: time.Minute}, []raft.RequestPreVoteResponse{no, yes}, raft.RPC{}, 1, false},
		"the election is over":     {&campaign{life: t.Context(), patience: time.Millisecond, pause: time.Minute}, []raft.RequestPreVoteResponse{no, yes}, raft.RPC{}, 1, false},
		"nobody uses it as a node": {nil, []raft.RequestPreVoteResponse{no, yes}, raft.RPC{}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			candidate, voter := newTestTransport(t), newTestTransport(t)
			candidate.campaign.Store(c.campaign)
			asked := 0
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				for {
					select {
					case question := <-voter.Consumer():
						answer := c.answers[min(asked, len(c.answers)-1)]
						asked++
						candidate.newest.note(c.heard)
						question.Respond(&answer, nil)
					case <-voter.closed:
						return
					}
				}
			}()
			var got raft.RequestPreVoteResponse
			require.NoError(t, candidate.RequestPreVote("voter", voter.LocalAddr(), &raft.RequestPreVoteRequest{Term: term}, &got))
			require.NoError(t, voter.Close())
			<-answered
			assert.Equal(t, c.granted, got.Granted)
			assert.Equal(t, c.asked, asked)
		})
	}
}
