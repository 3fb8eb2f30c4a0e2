package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// do stores one command and returns its result. The error is a *Problem: a
// refusal by the rules, or that the change was not stored.
func (s *server) do(ctx context.Context, payload fleet.Payload) (fleet.Result, error) {
	command, err := fleet.NewCommand(s.Now(), payload)
	if err != nil {
		return fleet.Result{}, s.fail("make a command", err)
	}
	ctx, cancel := context.WithTimeout(ctx, changePatience)
	defer cancel()
	results, err := s.Node.Propose(ctx, command)
	if p := s.leaderless(err); p != nil {
		return fleet.Result{}, p
	}
	if err != nil {
		return fleet.Result{}, s.fail("store a change", err)
	}
	if len(results) != 1 {
		return fleet.Result{}, s.fail("store a change", fmt.Errorf("%d results for one command", len(results)))
	}
	return results[0], s.refusal(results[0].Err())
}

// changePatience is how long a change waits for a leader: longer than an election
// takes, and shorter than clients wait.
const changePatience = 15 * time.Second

// leaderless is the answer to a change that was not stored because there is nobody
// to store it; nil if there is another reason.
func (s *server) leaderless(err error) *Problem {
	if !errors.Is(err, cluster.ErrNotLeader) && !errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	if _, unknown := errors.AsType[*cluster.UnknownOutcomeError](err); unknown {
		return nil
	}
	if id, _ := s.Node.Leader(); id != "" {
		return nil
	}
	p := unavailable("nothing was changed: the cluster has no leader at the moment")
	p.Code = wire.CodeNoLeader
	p.Mend = "send the request again after the pause; if it stays so, \"certctl cluster health\" says what is wrong"
	return p
}

func (s *server) refusal(err error) error {
	if err == nil {
		return nil
	}
	return s.fail("store a change", err)
}

// fail is the answer to an error, which it logs if it is this side's.
func (s *server) fail(doing string, err error) *Problem {
	p, defect := problemOf(err)
	if defect {
		s.Log.Error("an API request failed", "doing", doing, "err", err)
	}
	return p
}
