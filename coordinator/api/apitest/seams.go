package apitest

import (
	"context"
	"sync/atomic"

	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/issuers"
)

// seamNode is the node that the API sees.
type seamNode struct {
	*cluster.Node
	fault   atomic.Pointer[error]
	waiting atomic.Pointer[func()]
	hurried atomic.Bool
	confirm atomic.Pointer[func(context.Context) (uint64, error)]
	change  atomic.Pointer[func(id string, prevIndex uint64) error]
	removed atomic.Bool
}

// Ready implements api.Node.
func (n *seamNode) Ready() cluster.Readiness {
	r := n.Node.Ready()
	r.Member = r.Member && !n.removed.Load()
	return r
}

// Propose implements api.Node.
func (n *seamNode) Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error) {
	if err := n.fault.Swap(nil); err != nil {
		return nil, *err
	}
	return n.Node.Propose(ctx, commands...)
}

// WaitIndex implements api.Node.
func (n *seamNode) WaitIndex(ctx context.Context, index uint64) error {
	if tell := n.waiting.Swap(nil); tell != nil {
		(*tell)()
	}
	if n.hurried.Load() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 0)
		defer cancel()
	}
	return n.Node.WaitIndex(ctx, index)
}

// ConsistentIndex implements api.Node.
func (n *seamNode) ConsistentIndex(ctx context.Context) (uint64, error) {
	if confirm := n.confirm.Load(); confirm != nil {
		return (*confirm)(ctx)
	}
	return n.Node.ConsistentIndex(ctx)
}

// RemoveMember implements api.Node.
func (n *seamNode) RemoveMember(ctx context.Context, id string, prevIndex uint64, actor string) error {
	if change := n.change.Load(); change != nil {
		return (*change)(id, prevIndex)
	}
	return n.Node.RemoveMember(ctx, id, prevIndex, actor)
}

// Transfer implements api.Node.
func (n *seamNode) Transfer(ctx context.Context, id string) error {
	if change := n.change.Load(); change != nil {
		return (*change)(id, 0)
	}
	return n.Node.Transfer(ctx, id)
}

// seamIssuers are the issuers that the API sees.
type seamIssuers struct{ c *Coordinator }

func (s seamIssuers) those() api.Issuers {
	if set := s.c.issuers.Load(); set != nil {
		return *set
	}
	return noIssuers{}
}

// List implements api.Issuers.
func (s seamIssuers) List() ([]resource.Issuer, bool) { return s.those().List() }

// Test implements api.Issuers.
func (s seamIssuers) Test(ctx context.Context, name, actor string) (*resource.IssuerTest, error) {
	return s.those().Test(ctx, name, actor)
}

// Resume implements api.Issuers.
func (s seamIssuers) Resume(name, actor string) error { return s.those().Resume(name, actor) }

type noIssuers struct{}

func (noIssuers) List() ([]resource.Issuer, bool) { return nil, true }
func (noIssuers) Test(context.Context, string, string) (*resource.IssuerTest, error) {
	return nil, issuers.ErrUnknown
}
func (noIssuers) Resume(string, string) error { return issuers.ErrUnknown }
