package peer

import (
	"context"
	"sync"
	"time"
)

// refreshPatience bounds one round of asking the others who is a member.
const refreshPatience = 5 * time.Second

// A refresher asks for the members seldom, and once for all who wait.
type refresher struct {
	mu     sync.Mutex
	last   time.Time     // end of the last round, by the monotonic clock
	flight chan struct{} // closed when the present round ends; nil if there is none
}

// refreshing marks the context of a round: what it connects to are members that
// are known, and must not wait for the round that it is part of.
type refreshing struct{}

// known reports whether a node is a member by what is known now.
func (n *Network) known(id string) bool {
	n.mu.Lock()
	m := n.members
	n.mu.Unlock()
	return m != nil && m.Member(id)
}

// member reports whether a node is a member; before it says no it asks.
func (n *Network) member(ctx context.Context, id string) bool {
	if n.known(id) {
		return true
	}
	n.askMembers(ctx)
	return n.known(id)
}

// rightKey reports whether a connection is with the node that it says, by the key
// that was shown: the seal key, which signs certificates, proves less than the key
// that the cluster knows a member by. Before it says no it asks; also where it cannot
// know, which leaves the certificate to count.
func (n *Network) rightKey(ctx context.Context, c *conn) bool {
	if key, known := n.keyOf(c.key.Peer); known && key == c.shown {
		return true
	}
	n.askMembers(ctx)
	key, known := n.keyOf(c.key.Peer)
	if !known {
		n.counted.unknownKeys.Add(1)
	}
	return !known || key == c.shown
}

// impostor reports whether a connection is with somebody whose key is not that of
// the node which it says it is, by what is known now.
func (n *Network) impostor(c *conn) bool {
	key, known := n.keyOf(c.key.Peer)
	return known && key != c.shown
}

func (n *Network) keyOf(id string) (fingerprint string, known bool) {
	n.mu.Lock()
	m := n.members
	n.mu.Unlock()
	if m == nil {
		return "", false
	}
	return m.Key(id)
}

// at is the member that is expected at an address; before it says that there is
// none it asks.
func (n *Network) at(ctx context.Context, address string) (string, bool) {
	n.mu.Lock()
	m := n.members
	n.mu.Unlock()
	if m == nil {
		return "", false
	}
	if id, ok := m.At(address); ok {
		return id, true
	}
	n.askMembers(ctx)
	return m.At(address)
}

// askMembers has the members asked for, unless that was done a moment ago, and
// waits for the answer.
func (n *Network) askMembers(ctx context.Context) {
	if ctx.Value(refreshing{}) != nil {
		return
	}
	n.mu.Lock()
	m := n.members
	n.mu.Unlock()
	if m == nil {
		return
	}
	r := &n.refresh
	r.mu.Lock()
	flight := r.flight
	if flight == nil {
		if !r.last.IsZero() && time.Since(r.last) < n.config.RefreshGap {
			r.mu.Unlock()
			return
		}
		flight = make(chan struct{})
		r.flight = flight
		round := func() {
			defer r.landed(flight)
			ctx, cancel := context.WithTimeout(context.WithValue(n.life, refreshing{}, true), refreshPatience)
			defer cancel()
			n.counted.refreshes.Add(1)
			if err := m.Refresh(ctx); err != nil {
				n.refused.note(reasonRefresh, "", "", "see whether the other members can be reached", err)
			}
		}
		if !n.start(round) {
			close(flight)
			r.flight = nil
		}
	}
	r.mu.Unlock()
	select {
	case <-flight:
	case <-ctx.Done():
	}
}

func (r *refresher) landed(flight chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.flight = time.Now(), nil
	close(flight)
}
