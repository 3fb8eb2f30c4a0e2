package command

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/internal/crashsteps"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/wire"
)

func TestRenewBoundToASerial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.open()
		first := w.serial()
		w.command(wire.Command{ID: "command-1", Kind: wire.CommandRenew, Certificate: "www", Serial: first})
		second := w.serial()
		assert.NotEqual(t, first, second)
		assert.Equal(t, wire.CommandDone, w.commandNow().State)
		assert.Equal(t, "replaced by "+second, w.commandNow().Detail)

		// The same wish under another id is done already.
		w.command(wire.Command{ID: "command-1", Kind: wire.CommandRenew, Certificate: "www", Serial: first},
			wire.Command{ID: "command-2", Kind: wire.CommandRenew, Certificate: "www", Serial: first})
		assert.Equal(t, second, w.serial())
		list, err := w.store.Commands()
		require.NoError(t, err)
		require.Len(t, list, 2)
		assert.Equal(t, wire.CommandDone, list[1].State)
		assert.Len(t, w.ca.issued, 2)
	})
}

func TestNotBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.open()
		first := w.serial()
		at := time.Now().Add(3 * time.Hour)
		w.command(wire.Command{ID: "command-1", Kind: wire.CommandRenew, Certificate: "www", Serial: first, NotBefore: at})
		w.pass(time.Hour)
		w.reopen() // what was accepted survives a restart
		w.pass(time.Hour)
		assert.Equal(t, first, w.serial())
		assert.Equal(t, wire.CommandAccepted, w.commandNow().State)
		w.pass(time.Hour)
		assert.NotEqual(t, first, w.serial())
		assert.Equal(t, wire.CommandDone, w.commandNow().State)
		assert.WithinRange(t, w.certificate().Current.IssuedAt, at, at.Add(time.Minute))
	})
}

func TestWhatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.open()
		first := w.serial()
		w.command(
			wire.Command{ID: "command-1", Kind: "reboot", Certificate: "www"},
			wire.Command{ID: "command-2", Kind: wire.CommandRenew, Certificate: "other"},
			wire.Command{ID: "command-3"},
			wire.Command{ID: "command-4", Kind: wire.CommandRevoke, Certificate: "www", Serial: "beef"},
		)
		w.pass(time.Minute)
		list, err := w.store.Commands()
		require.NoError(t, err)
		for i, says := range []string{`commands of the kind "reboot"`, `no certificate named "other"`, `of the kind ""`, "no certificate with the serial number beef any more"} {
			assert.Contains(t, list[i].Detail, says)
			assert.True(t, list[i].State.Final())
		}
		assert.Equal(t, wire.CommandRefused, list[0].State)
		assert.Equal(t, wire.CommandFailed, list[3].State)
		assert.Equal(t, first, w.serial())
		assert.Empty(t, w.ca.revoked)
	})
}

// By reason: for a key in foreign hands the revocation comes first, otherwise the
// replacement does.
func TestTheOrderOfARevocation(t *testing.T) {
	for reason, first := range map[int]bool{0: false, 1: true, 2: true, 4: false, 5: false} {
		t.Run(fmt.Sprint(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.open()
				old := w.serial()
				served := ""
				w.ca.decide(func(string) error {
					served = w.certificate().Current.Serial
					return nil
				})
				w.command(wire.Command{ID: "command-1", Kind: wire.CommandRevoke, Certificate: "www", Serial: old, Reason: reason})
				fresh := w.serial()
				assert.NotEqual(t, old, fresh)
				assert.Equal(t, first, served == old, "what was in service when the issuer was asked")
				assert.Equal(t, map[string]int{old: reason}, w.ca.revoked)
				assert.Equal(t, 1, w.ca.asked)
				assert.Equal(t, wire.CommandDone, w.commandNow().State)
				assert.Equal(t, "revoked; replaced by "+fresh, w.commandNow().Detail)
				assert.Len(t, w.ca.issued, 2)
			})
		})
	}
}

// An issuer that cannot be reached holds up no replacement, and is asked until it
// answers; the pause survives a restart.
func TestTheIssuerIsAway(t *testing.T) {
	for _, reason := range []int{1, 4} {
		t.Run(fmt.Sprint(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.open()
				old := w.serial()
				w.ca.decide(func(string) error { return errors.New("no route to the authority") })
				w.command(wire.Command{ID: "command-1", Kind: wire.CommandRevoke, Certificate: "www", Serial: old, Reason: reason})
				fresh := w.serial()
				assert.NotEqual(t, old, fresh)
				assert.Equal(t, wire.CommandAccepted, w.commandNow().State)
				assert.Contains(t, w.commandNow().Detail, "not revoked yet: no route to the authority")
				w.pass(time.Hour)
				w.reopen()
				w.pass(time.Hour)
				assert.InDelta(t, 7, w.ca.asked, 2, "the pauses grow")
				w.ca.decide(nil)
				w.pass(8 * time.Hour)
				assert.Equal(t, wire.CommandDone, w.commandNow().State)
				assert.Equal(t, map[string]int{old: reason}, w.ca.revoked)
				assert.Equal(t, fresh, w.serial())
			})
		})
	}
}

// What the issuer refuses is not asked again; the replacement is made all the
// same.
func TestTheIssuerRefuses(t *testing.T) {
	for _, reason := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.open()
			old := w.serial()
			w.ca.decide(func(string) error {
				return &issuer.Error{Class: issuer.ClassRefused, Err: errors.New("not by this account"), Mend: "ask the authority"}
			})
			w.command(wire.Command{ID: "command-1", Kind: wire.CommandRevoke, Certificate: "www", Serial: old, Reason: reason})
			fresh := w.serial()
			w.pass(24 * time.Hour)
			assert.NotEqual(t, old, fresh)
			assert.Equal(t, 1, w.ca.asked)
			assert.Equal(t, wire.CommandFailed, w.commandNow().State)
			assert.Equal(t, "not revoked: not by this account; ask the authority; replaced by "+fresh, w.commandNow().Detail)
		})
	}
}

// Whoever asked for a renewal hears that it needs a person; the engine goes on
// trying, and there is one certificate in the end.
func TestARenewalThatNeedsAPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.open()
		old := w.serial()
		w.ca.refuse(true)
		w.command(wire.Command{ID: "command-1", Kind: wire.CommandRenew, Certificate: "www", Serial: old})
		w.pass(time.Minute)
		assert.Equal(t, wire.CommandFailed, w.commandNow().State)
		assert.Contains(t, w.commandNow().Detail, "needs a person: not today")
		w.ca.refuse(false)
		w.pass(24 * time.Hour)
		assert.NotEqual(t, old, w.serial())
		assert.Len(t, w.ca.issued, 2)
	})
}

// What the authority has revoked is held for revoked before it is replaced, whether
// or not it can be; the command waits for its replacement.
func TestARenewalOfWhatWasRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.open()
		old := w.serial()
		w.ca.refuse(true)
		at := time.Now().UTC().Add(-30 * time.Second)
		command := wire.Command{ID: "command-1", Kind: wire.CommandRenew, Certificate: "www", Serial: old, Reason: 4, RevokedAt: at}
		w.command(command)
		w.pass(time.Minute)
		require.Equal(t, old, w.serial())
		rec := w.certificate()
		assert.Equal(t, &store.Revocation{At: at, Reason: 4}, rec.Current.Revoked)
		assert.Equal(t, at, rec.Horizon(), "it is not safe now")
		assert.Contains(t, rec.NeedsAttention, "revoked")
		assert.Equal(t, wire.CommandAccepted, w.commandNow().State)

		w.reopen()
		w.command(command)
		w.ca.refuse(false)
		w.pass(24 * time.Hour) // what was refused is asked for again after hours
		fresh := w.serial()
		assert.NotEqual(t, old, fresh)
		assert.Nil(t, w.certificate().Current.Revoked)
		assert.Equal(t, wire.CommandDone, w.commandNow().State)
		assert.Len(t, w.ca.issued, 2)

		// Of what is in service no more there is nothing to tell.
		command.ID = "command-2"
		w.command(command)
		assert.Equal(t, fresh, w.serial())
		assert.Equal(t, wire.CommandDone, w.withID("command-2"))
		assert.Nil(t, w.certificate().Current.Revoked)
	})
}

// An issuer that hangs holds up the commands that wait for it and no others.
func TestAnIssuerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.open()
		old := w.serial()
		release := make(chan struct{})
		w.ca.decide(func(string) error { <-release; return nil })
		w.command(wire.Command{ID: "command-1", Kind: wire.CommandRevoke, Certificate: "www", Serial: old, Reason: 1})
		w.pass(time.Second)
		w.command(
			wire.Command{ID: "command-1", Kind: wire.CommandRevoke, Certificate: "www", Serial: old, Reason: 1},
			wire.Command{ID: "command-2", Kind: wire.CommandRenew, Certificate: "www", Serial: old},
		)
		assert.NotEqual(t, old, w.serial())
		list, err := w.store.Commands()
		require.NoError(t, err)
		assert.Equal(t, wire.CommandDone, list[1].State)
		close(release)
		w.pass(time.Minute)
		assert.Equal(t, wire.CommandDone, w.withID("command-1"))
		assert.Len(t, w.ca.issued, 2, "both commands are about the same certificate")
	})
}

// A store that no longer knows what it holds ends the runner, so that a new
// process reads what is there; a full disk does not.
func TestTheStoreFails(t *testing.T) {
	for failure, ends := range map[error]bool{store.ErrStateUnknown: true, syscall.ENOSPC: false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.open()
			old := w.serial()
			failing := &failingStore{Store: w.store, failure: failure}
			runner, err := New(Config{
				Store: failing, Engine: w.engine, Key: func(string) (crypto.Signer, error) { return nil, errors.New("none") },
				Revoker: func(string) issuer.Revoker { return nil }, Log: slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			w.stopRunner()
			w.command(wire.Command{ID: "command-1", Kind: wire.CommandRenew, Certificate: "www", Serial: old})
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- runner.Run(ctx) }()
			w.pass(time.Minute)
			if ends {
				require.ErrorIs(t, <-ended, store.ErrStateUnknown)
				return
			}
			require.Equal(t, wire.CommandAccepted, w.commandNow().State)
			failing.mend()
			require.NotEqual(t, old, w.serial())
			require.Equal(t, wire.CommandDone, w.commandNow().State)
			cancel()
			require.NoError(t, <-ended)
		})
	}
}

// failingStore fails every write until it is mended.
type failingStore struct {
	Store
	mu      sync.Mutex
	failure error
}

func (s *failingStore) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = nil
}

func (s *failingStore) UpdateCommand(id string, fn func(*store.Command, *store.Certificate) error) error {
	s.mu.Lock()
	failure := s.failure
	s.mu.Unlock()
	if failure != nil {
		return failure
	}
	return s.Store.UpdateCommand(id, fn)
}

func (w *world) withID(id string) wire.CommandState {
	list, err := w.store.Commands()
	require.NoError(w.t, err)
	for _, c := range list {
		if c.Request.ID == id {
			return c.State
		}
	}
	return ""
}

// After each durable step of a command's life, and around the question to the
// issuer, the host is started on a copy of its state, and the centre repeats the
// command: it is carried out once.
func TestCrashAtEveryStepOfACommand(t *testing.T) {
	total, met := 0, map[durable.Step]int{}
	for name, command := range map[string]wire.Command{
		"renew":            {Kind: wire.CommandRenew},
		"revoke first":     {Kind: wire.CommandRevoke, Reason: 1},
		"replace first":    {Kind: wire.CommandRevoke, Reason: 4},
		"whatever it is":   {Kind: wire.CommandRenew, Serial: "-"},
		"revoke this pair": {Kind: wire.CommandRevoke, Serial: "-"},
		"it was revoked":   {Kind: wire.CommandRenew, Reason: 1, RevokedAt: time.Now()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.open()
				old := w.serial()
				command.ID, command.Certificate = "command-1", "www"
				if command.Serial == "-" {
					command.Serial = "" // decided here
				} else {
					command.Serial = old
				}
				type crash struct {
					label string
					world *world
				}
				var points []crash
				w.record = func(label string, copied *world) { points = append(points, crash{label, copied}) }
				w.command(command)
				w.serial()
				w.record = nil
				require.Equal(t, wire.CommandDone, w.commandNow().State)
				w.close()

				kinds := map[string]int{}
				for i, p := range points {
					kinds[p.label]++
					label := fmt.Sprintf("%02d %s", i, p.label)
					t.Cleanup(p.world.close)
					p.world.open()
					p.world.command(command)
					fresh := p.world.serial()
					require.Equal(t, wire.CommandDone, p.world.commandNow().State, label)
					require.NotEqual(t, old, fresh, label)
					require.Len(t, p.world.ca.issued, 2, label)
					if command.Kind == wire.CommandRevoke {
						require.Equal(t, map[string]int{old: command.Reason}, p.world.ca.revoked, label)
					} else {
						require.Empty(t, p.world.ca.revoked, label)
					}
					p.world.pass(time.Hour)
					require.Equal(t, fresh, p.world.serial(), label)
					p.world.close()
				}
				assert.GreaterOrEqual(t, kinds["store: after a commit"], 8)
				if command.Kind == wire.CommandRevoke {
					assert.Equal(t, 1, kinds["authority: before the revocation"])
					assert.Equal(t, 1, kinds["authority: the answer is lost"])
				}
				total += len(points)
				for step, times := range w.met {
					met[step] += times
				}
			})
		})
	}
	crashsteps.Require(t, met)
	counts.Report(t, "command-crash-points", total, "states of a host amid a command, on which a new one was started")
}
