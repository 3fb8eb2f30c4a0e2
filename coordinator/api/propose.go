package api

import (
	"context"
	"fmt"

	"github.com/certctl/certctl/coordinator/fleet"
)

// do stores one command and returns its result. The error is a *Problem: a
// refusal by the rules, or that the change was not stored.
func (s *server) do(ctx context.Context, payload fleet.Payload) (fleet.Result, error) {
	command, err := fleet.NewCommand(s.Now(), payload)
	if err != nil {
		return fleet.Result{}, s.fail("make a command", err)
	}
	results, err := s.Node.Propose(ctx, command)
	if err != nil {
		return fleet.Result{}, s.fail("store a change", err)
	}
	if len(results) != 1 {
		return fleet.Result{}, s.fail("store a change", fmt.Errorf("%d results for one command", len(results)))
	}
	return results[0], s.refusal(results[0].Err())
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
