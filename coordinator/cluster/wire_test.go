package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

func TestErrorsCrossTheWire(t *testing.T) {
	for _, err := range []error{
		ErrNotLeader, ErrTooLarge, ErrNoMember,
		&OverloadedError{RetryAfter: 2 * time.Second},
		&LevelError{Required: 7, Nodes: []string{"a", "b"}},
		&ConflictError{Index: 12},
		&QuorumError{Reason: "too few"},
		&RefusedError{Reason: "no"},
		&AddressTakenError{Address: "a:1", Member: "a"},
	} {
		var crossed callError
		require.NoError(t, decodeCall(mustEncode(encodeError(fmt.Errorf("somewhere: %w", err))), &crossed))
		got := decodeError(&crossed)
		var refused *RefusedError
		if errors.As(err, &refused) {
			require.ErrorAs(t, got, &refused)
			continue
		}
		if want := err; errors.Is(got, want) {
			continue
		}
		assert.Equal(t, err, got)
	}
	// Doubt goes before what it wraps: a leader that stopped may have stored it.
	var unknown *UnknownOutcomeError
	require.ErrorAs(t, decodeError(encodeError(&UnknownOutcomeError{Err: ErrStopped})), &unknown)
	assert.NotErrorIs(t, unknown, ErrStopped, "it is the other node that stops")
	require.ErrorIs(t, decodeError(encodeError(ErrStopped)), ErrNotLeader)
	require.ErrorAs(t, decodeError(&callError{Code: "of a later version", Detail: "x"}), new(*RefusedError))
	require.Error(t, decodeCall(make([]byte, maxCall+1), &answer{}))
}

// fuzzedNode is a node that waits to be let into a cluster.
func fuzzedNode(f *testing.F) *Node {
	c := Config{
		Dir: f.TempDir(), NodeID: "n", Journal: &memoryJournal{}, Log: slog.New(slog.DiscardHandler),
		ElectionTimeout: time.Minute, Advertise: "n",
	}
	require.NoError(f, Prepare(c, []raft.Server{{ID: "other", Address: "other"}}, nil, 0))
	n, err := Open(c)
	require.NoError(f, err)
	f.Cleanup(func() { assert.NoError(f, n.Close()) })
	return n
}

// FuzzCalls feeds a node what another one might send, and what it might answer.
func FuzzCalls(f *testing.F) {
	command, err := fleet.NewCommand(time.Unix(1, 0), fleet.CreateEnrollmentToken{ID: "a"})
	require.NoError(f, err)
	entry, err := fleet.EncodeEntry([]fleet.Command{command})
	require.NoError(f, err)
	f.Add(methodPropose, mustEncode(proposeRequest{Level: 1, Entry: entry}))
	f.Add(methodAnnounce, mustEncode(memberRequest{ID: "n", Address: "a"}))
	f.Add(methodTransfer, mustEncode(memberRequest{}))
	f.Add(methodRemoveMember, mustEncode(memberRequest{ID: "n", PrevIndex: 1, Actor: "api_token:a"}))
	f.Add("none", mustEncode(answer{Error: encodeError(&LevelError{Required: 1, Nodes: []string{"x"}})}))
	f.Add("none", mustEncode(answer{Body: mustEncode(proposeAnswer{Index: 1, Results: []fleet.Result{{Code: "x"}}})}))
	n := fuzzedNode(f)
	f.Fuzz(func(t *testing.T, method string, data []byte) {
		// Nothing leads here: whatever is understood is refused.
		answered, err := n.HandleCall(context.Background(), "other", method, data)
		require.NoError(t, err)
		var a answer
		require.NoError(t, decodeCall(answered, &a))
		switch method {
		case methodStats, methodConfiguration:
			require.Nil(t, a.Error)
		default:
			require.NotNil(t, a.Error, "%s", method)
		}
		var foreign answer
		if decodeCall(data, &foreign) != nil || foreign.Error == nil {
			return
		}
		again := encodeError(decodeError(foreign.Error))
		require.Error(t, decodeError(again))
	})
}
