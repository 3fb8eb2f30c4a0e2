package revocation

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/jitter"
)

const (
	// lookInterval is how soon a revocation stands on a list. Those of one
	// interval share a list.
	lookInterval = 20 * time.Second
	// listLifetime is how long a list is good, and listInterval how often there is
	// a new one when nothing was revoked: a coordinator may be away for six days
	// before anybody is left without a list.
	listLifetime = 7 * 24 * time.Hour
	listInterval = 24 * time.Hour
	// backdate is for readers whose clocks are a little slow.
	backdate = time.Minute
)

// Node is the replicated state; *cluster.Node is one.
type Node interface {
	State() *fleet.State
	Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error)
}

// Authority signs lists. *ca.CA is one.
type Authority interface {
	Unsealed() <-chan struct{}
	// ListSigners are the key ids of the CAs that have a list.
	ListSigners() []string
	RevocationList(id string, list *fleet.RevocationList, entries []*fleet.Revocation) ([]byte, error)
}

var _ Authority = (*ca.CA)(nil)

// Config of a Service. All but Now are required.
type Config struct {
	Node Node
	CA   Authority
	Log  *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Service publishes lists. It is an http.Handler for paths below Prefix and safe
// for concurrent use.
type Service struct {
	node Node
	ca   Authority
	log  *slog.Logger
	now  func() time.Time

	mu   sync.Mutex        // guards made; held while a list is signed, so that each is once
	made map[string]signed // by the signer's key id
}

// signed is the newest list of one issuing CA.
type signed struct {
	list fleet.RevocationList
	der  []byte
}

// New checks the configuration.
func New(c Config) (*Service, error) {
	if c.Node == nil || c.CA == nil || c.Log == nil {
		return nil, errors.New("revocation lists: one of Node, CA and Log is missing")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{node: c.Node, ca: c.CA, log: c.Log, now: c.Now, made: make(map[string]signed)}, nil
}

// Leadership is where the leader's work is registered; *cluster.Node is one.
type Leadership interface {
	Lead(name string, work func(ctx context.Context) error)
}

// Lead registers what the service does while this node leads. It is called
// before the node runs.
func (s *Service) Lead(node Leadership) { node.Lead("revocation lists", s.publish) }

// publish makes a new list whenever one is due, until ctx is done.
func (s *Service) publish(ctx context.Context) error {
	select {
	case <-s.ca.Unsealed():
	case <-ctx.Done():
		return nil
	}
	now := make(chan struct{}, 1)
	now <- struct{}{} // for what an earlier leader left
	jitter.Loop(ctx, lookInterval, jitter.DefaultSchedulerJitter, now, s.publishOnce)
	return nil
}

func (s *Service) publishOnce(ctx context.Context) {
	now := s.now().UTC().Truncate(time.Second)
	if !due(s.node.State().View(), now) {
		return
	}
	this := now.Add(-backdate)
	list, err := s.propose(ctx, fleet.PublishRevocations{ThisUpdate: this, NextUpdate: this.Add(listLifetime)})
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("a revocation list was not published; it is tried again", "err", err)
		}
		return
	}
	s.log.Info("revocation list published", "number", list.Number, "next_update", list.NextUpdate)
}

// due reports whether there is to be a new list: there is none, something was
// revoked since, it is a day old, or it is of a time that has not come.
func due(view *fleet.View, now time.Time) bool {
	list, behind, ok := view.NewestList()
	return !ok || behind || now.Sub(list.ThisUpdate) >= listInterval || list.ThisUpdate.After(now)
}

func (s *Service) propose(ctx context.Context, payload fleet.Payload) (list fleet.RevocationList, err error) {
	command, err := fleet.NewCommand(s.now(), payload)
	if err != nil {
		return list, err
	}
	results, err := s.node.Propose(ctx, command)
	if err != nil {
		return list, err
	}
	return list, results[0].Decode(&list)
}
