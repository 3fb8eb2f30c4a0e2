package sync

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/certctl/certctl/shared/wire"
)

// Made is what this host made of a desired state.
type Made struct {
	Digest  string // of the state
	Reports []wire.AssignmentReport
}

// Report says what was made of a desired state. The coordinator is told with the
// next sync, unless it knows.
func (c *Client) Report(made Made) {
	c.mu.Lock()
	c.made = made
	c.mu.Unlock()
	c.Kick()
}

// tell adds to a request what this host goes by, what it made of it, and how far
// it is with commands.
func (c *Client) tell(x *exchange, request *wire.SyncRequest) error {
	wanted, err := c.store.Wanted()
	if err != nil {
		return err
	}
	request.DesiredDigest = wanted.Digest
	c.mu.Lock()
	made := c.made
	c.mu.Unlock()
	x.reported = c.reported
	if made.Digest == wanted.Digest && made.Digest != "" {
		if x.reported, err = fingerprint(made); err != nil {
			return err
		}
		// A coordinator that asks for everything may have lost this too.
		if x.reported != c.reported || x.resyncID != "" && x.base == 0 {
			request.Assignments = made.Reports
		}
	}
	commands, err := c.store.Commands()
	if err != nil {
		return err
	}
	x.told = make(map[string]bool)
	for i := range commands {
		if commands[i].State.Final() {
			x.told[commands[i].Request.ID] = true
		}
		request.Commands = append(request.Commands, commands[i].Result())
	}
	return nil
}

func fingerprint(made Made) (string, error) {
	text, err := json.Marshal(made)
	if err != nil {
		return "", fmt.Errorf("sync request: %w", err)
	}
	sum := sha256.Sum256(text)
	return string(sum[:]), nil
}

// heed makes durable what the centre wants, before anything is done about it.
func (c *Client) heed(x *exchange, answer *wire.SyncResponse) error {
	c.reported = x.reported
	if answer.Desired != nil {
		if err := c.take(answer.Desired); err != nil {
			return err
		}
	}
	commands := make([]wire.Command, 0, len(answer.Commands))
	for _, command := range answer.Commands {
		problem := command.Validate()
		switch {
		case problem == nil:
		case wire.ValidCommandID(command.ID):
			command = wire.Command{ID: command.ID} // it is answered, by a refusal
		default:
			c.log.Warn("a command of the coordinator has no id that could be answered, and was left out", "err", problem)
			continue
		}
		commands = append(commands, command)
	}
	accepted, err := c.store.FollowCommands(commands, x.told)
	if err != nil {
		return err
	}
	if accepted > 0 {
		c.log.Info("commands accepted", "commands", accepted)
		c.Kick()
		if c.cfg.OnCommands != nil {
			c.cfg.OnCommands()
		}
	}
	return nil
}

// take stores a desired state. One that makes no sense is refused whole, and the
// one before stays in force.
func (c *Client) take(desired *wire.Desired) error {
	before, err := c.store.Wanted()
	if err != nil {
		return err
	}
	err = c.store.SaveDesired(desired)
	if problem, refused := errors.AsType[*wire.Problem](err); refused {
		if before.RefusedDigest != desired.Digest || before.Refusal == "" {
			c.log.Warn("what the coordinator wants of this host makes no sense and was refused; what it wanted before stays in force", "digest", clip(desired.Digest), "err", problem)
		}
		return c.store.RefuseDesired(desired.Digest, problem.Error(), wire.Event{
			Kind: wire.EventDesiredRefused, At: c.now().Round(0).UTC(), Detail: clip(problem.Error()),
		})
	}
	if err != nil {
		return err
	}
	if before.Digest == desired.Digest {
		return nil
	}
	c.log.Info("the coordinator's assignments have changed", "digest", desired.Digest, "assignments", len(desired.Assignments))
	if c.cfg.OnDesired != nil {
		c.cfg.OnDesired()
	}
	return nil
}
