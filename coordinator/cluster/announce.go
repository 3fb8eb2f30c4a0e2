package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/backoff"
)

// Announce makes known what this node says about itself: its address in the
// configuration, and its record in the replicated state. It does nothing if that
// is known, and tries until ctx is done if it cannot be made known. A node that
// is no member has nothing to announce: the error is ErrNoMember. One whose
// address is that of another member is told so with *AddressTakenError.
func (n *Node) Announce(ctx context.Context) error {
	if err := n.announceAddress(ctx); err != nil {
		return fmt.Errorf("announce the address of this node: %w", err)
	}
	if n.config.Record == nil {
		return nil
	}
	record, err := n.config.Record()
	if err != nil {
		return fmt.Errorf("announce this node: %w", err)
	}
	record.ID, record.Address, record.Level = n.config.NodeID, string(n.config.address()), fleet.Level
	if stored, ok := n.State().View().ClusterNode(record.ID); ok && saysTheSame(stored, &record) {
		return nil
	}
	command, err := fleet.NewCommand(time.Now(), fleet.AnnounceNode{Node: record})
	if err != nil {
		return fmt.Errorf("announce this node: %w", err)
	}
	results, err := n.Propose(ctx, command)
	if err == nil {
		err = results[0].Err()
	}
	return wrap("announce this node", err)
}

// saysTheSame compares what nodes say, and not what the state adds.
func saysTheSame(a, b *fleet.ClusterNode) bool {
	return a.ID == b.ID && a.Address == b.Address && a.URL == b.URL && a.Version == b.Version && a.Level == b.Level &&
		a.KeyFingerprint == b.KeyFingerprint && slices.Equal(a.Trusts, b.Trusts) && a.Signer == b.Signer &&
		a.CertificateNotAfter.Equal(b.CertificateNotAfter)
}

// announceAddress has the configuration give this node's present address. A
// leader that dials the old one cannot be heard here: so all members that are
// known are told. The one that leads changes the configuration; the others dial
// the new address from then on, so that there can be a leader if there is none.
func (n *Node) announceAddress(ctx context.Context) error {
	request := memberRequest{ID: n.config.NodeID, Address: string(n.config.address())}
	for attempt := 1; ; attempt++ {
		_, servers := n.configuration()
		own := serverOf(servers, n.config.NodeID)
		switch {
		case !n.isMember() || own == nil:
			return ErrNoMember
		case string(own.Address) == request.Address:
			return nil
		}
		err := n.offerAddress(ctx, servers, request)
		if err == nil {
			return nil
		}
		_, taken := errors.AsType[*AddressTakenError](err)
		if taken || errors.Is(err, ErrStopped) || errors.Is(err, ErrNoMember) || backoff.Wait(ctx, proposeRetry.Delay(attempt, nil)) != nil {
			return err
		}
	}
}

func (n *Node) offerAddress(ctx context.Context, servers []raft.Server, request memberRequest) error {
	if n.raft.State() == raft.Leader {
		return n.change(ctx, methodAnnounce, request)
	}
	if n.config.Peers == nil {
		return ErrNotLeader
	}
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		done bool
		last = ErrNotLeader
	)
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	for _, s := range servers {
		if string(s.ID) == n.config.NodeID {
			continue
		}
		wg.Go(func() {
			err := n.call(ctx, string(s.ID), string(s.Address), methodAnnounce, mustEncode(request), nil)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				// What the operator can mend says more than that another one leads.
				if _, taken := errors.AsType[*AddressTakenError](last); !taken {
					last = err
				}
				return
			}
			done = true
			cancel() // the leader has done it
		})
	}
	wg.Wait()
	if done {
		return nil
	}
	return last
}
