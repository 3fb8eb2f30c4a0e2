//go:build unix

package crashtest

import (
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy/file"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// scenario is something that an agent does, from rest to rest.
type scenario struct {
	name    string
	layouts []file.Layout
	// fresh begins with an empty disk; otherwise one renewal is over.
	fresh bool
	// enrolled has a coordinator, brokered a certificate from it, assigned one that
	// it defines.
	enrolled, brokered, assigned bool
	// early begins before the renewal is due.
	early bool
	// prepare happens before anything is recorded; the agent does not run.
	prepare func(*world)
	// act is what is recorded: it starts the agent.
	act func(*world)
	// renewals is how many are over at the end. An act of an operator that a
	// crash comes before has not happened: asked tells by what was found.
	renewals uint64
	asked    func(w *world, found *store.Certificate) bool
	// comesBack puts a certificate that was removed back into the configuration.
	comesBack bool
	// power fails, where otherwise the agent crashes.
	power bool
	// twice crashes again in the recovery.
	twice bool
	// refused is a pair that is tried in vain first.
	refused bool
	// check is instead of the check that everything is served.
	check func(*world)
	// tick is how often the agent looks at its schedule; 0 is each minute.
	tick time.Duration
	// limit is for how long it may be at it; 0 is a day.
	limit time.Duration
}

// broken makes a place's program fail from the renewal on, for half a minute: the
// first attempt fails, and the next one does not.
func broken(id string, f fault) func(*world) {
	return func(w *world) {
		p := w.place(id)
		p.fault, p.mended = f, time.Now().Add(30*time.Second)
	}
}

func (w *world) place(id string) *place {
	for _, p := range w.places {
		if p.id == id {
			return p
		}
	}
	require.FailNow(w.t, "no such place", id)
	return nil
}

// renew is the usual act: the agent starts when the renewal is due.
func renew(w *world) {
	w.open()
	w.rest(2, 24*time.Hour)
}

// once makes the n-th of the steps fail with err, before it does anything.
func once(step durable.Step, n int, err error) func(*world) {
	return func(w *world) {
		w.strike = func(at durable.Step, _ string, done bool) error {
			if at != step || done {
				return nil
			}
			if n--; n == 0 {
				return err
			}
			return nil
		}
	}
}

func all(parts ...func(*world)) func(*world) {
	return func(w *world) {
		for _, part := range parts {
			part(w)
		}
	}
}

func scenarios() []scenario {
	const files, directory = file.LayoutFiles, file.LayoutDirectory
	return []scenario{
		{
			name: "first certificate", layouts: []file.Layout{directory, combined}, fresh: true, renewals: 1,
			act: func(w *world) { w.open(); w.rest(1, time.Hour) },
		},
		{
			name: "first certificate, and the power fails", layouts: []file.Layout{combined, directory}, fresh: true, renewals: 1, power: true,
			act: func(w *world) { w.open(); w.rest(1, time.Hour) },
		},
		{
			name: "first certificate, and its program does not reload", layouts: []file.Layout{files}, fresh: true, renewals: 1, refused: true,
			prepare: broken("files", reloadFails),
			act:     func(w *world) { w.open(); w.rest(1, time.Hour) },
		},
		{
			name: "first certificate, and a link that is taken back", layouts: []file.Layout{directory}, fresh: true, renewals: 1,
			prepare: broken("directory", reloadFails),
			act:     func(w *world) { w.open(); w.rest(1, time.Hour) },
		},
		{name: "renewal", layouts: []file.Layout{files, directory}, renewals: 2, act: renew, twice: true},
		{name: "renewal, and the power fails", layouts: []file.Layout{directory, combined}, renewals: 2, act: renew, power: true},
		{
			name: "a deployment fails, and the power", layouts: []file.Layout{directory}, renewals: 2, power: true, refused: true,
			prepare: broken("directory", reloadFails), act: renew,
		},
		{name: "check fails", layouts: []file.Layout{files}, renewals: 2, refused: true, prepare: broken("files", checkFails), act: renew},
		{
			name: "of two deployments one does not reload", layouts: []file.Layout{combined, directory}, renewals: 2, refused: true,
			prepare: broken("directory", reloadFails), act: renew,
		},
		{
			name: "the old certificate is served", layouts: []file.Layout{files}, renewals: 2, refused: true,
			prepare: broken("files", servesOld), act: renew,
		},
		{
			name: "the new certificate is served, and does not work", layouts: []file.Layout{combined}, renewals: 2, refused: true,
			prepare: broken("combined", failsWithIt), act: renew,
		},
		{
			name: "rollback fails", layouts: []file.Layout{files}, renewals: 2, act: renew,
			// Two renames to the new pair, and then the first one back.
			prepare: all(broken("files", reloadFails), once("deploy/file: rename", 3, syscall.EIO)),
		},
		{
			name: "key cannot be written", layouts: []file.Layout{combined}, renewals: 2, act: renew,
			prepare: once("keys: sync", 1, syscall.EIO),
		},
		{
			name: "over to a stand-in that is asked at once", layouts: []file.Layout{combined}, renewals: 2, act: renew,
			prepare: func(w *world) { w.standIn, w.ca.refuses = newAuthority("stand-in"), true },
		},
		{
			name: "over to a stand-in while the order is open", layouts: []file.Layout{combined}, renewals: 2,
			tick: time.Hour, limit: 3 * 24 * time.Hour,
			prepare: func(w *world) {
				w.standIn, w.ca.stalls = newAuthority("stand-in"), time.Now().Add(lifetime)
				// Little is left of the certificate, or the order would be waited for.
				w.pass(time.Until(epoch.Add(lifetime - 5*24*time.Hour)))
			},
			act: func(w *world) { w.open(); w.rest(2, 3*24*time.Hour) },
		},
		{
			name: "asked for by an operator", layouts: []file.Layout{combined}, renewals: 2, early: true,
			act: func(w *world) {
				w.open()
				w.rest(1, time.Hour)
				require.NoError(w.t, w.engine.Renew(context.Background(), name))
				w.rest(2, time.Hour)
			},
			asked: func(_ *world, found *store.Certificate) bool {
				return found.Forced || found.Phase != store.PhaseIdle || found.Renewals > 1
			},
		},
		{
			name: "revoked", layouts: []file.Layout{combined}, renewals: 2, early: true,
			act: func(w *world) {
				w.open()
				w.rest(1, time.Hour)
				require.NoError(w.t, w.engine.Revoked(name, w.record().Current.Serial, time.Now(), pki.ReasonKeyCompromise))
				w.rest(2, time.Hour)
			},
			asked: func(_ *world, found *store.Certificate) bool {
				return found.Current.Revoked != nil || found.Phase != store.PhaseIdle || found.Renewals > 1
			},
		},
		{
			name: "changed configuration", layouts: []file.Layout{combined}, renewals: 2, early: true, act: renew,
			prepare: func(w *world) { w.dns = "www.example.com" },
		},
		{
			name: "from the coordinator", layouts: []file.Layout{combined}, renewals: 2, act: renew, enrolled: true, brokered: true,
		},
		{
			name: "from an authority of the coordinator's", layouts: []file.Layout{combined}, renewals: 2, act: renew, enrolled: true, brokered: true,
			prepare: func(w *world) {
				w.centre.Late, w.centre.Progress = true, wire.OrderProgress{Stage: wire.OrderAtAuthority}
			},
		},
		{
			name: "defined by the coordinator", layouts: []file.Layout{combined}, fresh: true, renewals: 1,
			enrolled: true, brokered: true, assigned: true,
			prepare: func(w *world) { w.centre.want(wished) }, act: obey, check: requireObeyed,
		},
		{
			name: "identity", layouts: []file.Layout{combined}, renewals: 1, enrolled: true, early: true,
			prepare: func(w *world) { w.pass(time.Until(w.centre.renewAt) + time.Second) },
			act:     func(w *world) { w.centre.renewals = 1; w.open(); w.rest(1, 24*time.Hour) },
		},
		{
			name: "identity, and the power fails", layouts: []file.Layout{combined}, renewals: 1, enrolled: true, early: true, power: true,
			prepare: func(w *world) { w.pass(time.Until(w.centre.renewAt) + time.Second) },
			act:     func(w *world) { w.centre.renewals = 1; w.open(); w.rest(1, 24*time.Hour) },
		},
		{
			name: "state file of the first schema", layouts: []file.Layout{combined}, fresh: true, renewals: 1,
			prepare: oldStateFile,
			act:     func(w *world) { w.open(); w.rest(1, time.Hour) },
			check:   func(w *world) { w.rest(1, time.Hour); w.requireServed(1) },
		},
		{
			name: "changed configuration while it runs", layouts: []file.Layout{combined}, renewals: 2, early: true,
			act: func(w *world) {
				w.open()
				w.rest(1, time.Hour)
				w.dns = "www.example.com" // in the file, which the reload reads
				list, err := w.managed(nil)
				require.NoError(w.t, err)
				_, err = w.engine.Reconfigure(list)
				require.NoError(w.t, err)
				w.rest(2, time.Hour)
			},
			asked: func(w *world, _ *store.Certificate) bool { return w.dns == "www.example.com" },
		},
		{
			name: "the key is kept", layouts: []file.Layout{combined}, renewals: 2, act: renew,
			prepare: func(w *world) { w.reuse = true },
		},
		{
			name: "a turn at the issuer", layouts: []file.Layout{combined}, renewals: 2, act: renew,
			prepare: func(w *world) { w.limits = renewal.Limits{OrdersPerHour: 1, Burst: 1} },
		},
		{
			name: "set aside, and back in time", layouts: []file.Layout{combined}, renewals: 2, comesBack: true,
			prepare: func(w *world) { w.removed, w.keep = true, 30*24*time.Hour },
			act: func(w *world) {
				w.open()
				w.pass(time.Minute)
				require.NoError(w.t, w.stop())
				w.removed = false
				w.open()
				w.rest(2, 24*time.Hour)
			},
		},
		{
			name: "set aside, and not back in time", layouts: []file.Layout{combined}, renewals: 1,
			prepare: func(w *world) { w.removed, w.keep = true, 2*off },
			act:     func(w *world) { w.open(); w.pass(2*off + 2*time.Hour) },
			check:   func(w *world) { w.pass(2*off + 2*time.Hour); requireForgotten(w) },
		},
		{
			name: "not managed any more", layouts: []file.Layout{files, directory}, renewals: 1,
			prepare: func(w *world) { w.removed = true },
			act:     func(w *world) { w.open(); w.pass(time.Minute) },
			check:   requireForgotten,
		},
	}
}

// oldStateFile puts a state file there that the first version wrote. Its
// certificates are not in the configuration any more.
func oldStateFile(w *world) {
	state := filepath.Join(w.root, "state")
	require.NoError(w.t, os.Mkdir(state, 0o700))
	packed, err := os.Open("../../agent/store/testdata/v1.db.gz")
	require.NoError(w.t, err)
	defer packed.Close()
	old, err := gzip.NewReader(packed)
	require.NoError(w.t, err)
	content, err := io.ReadAll(old)
	require.NoError(w.t, err)
	require.NoError(w.t, os.WriteFile(filepath.Join(state, "state.db"), content, 0o600))
}

// requireForgotten checks that nothing but what was installed is left of the
// certificate.
func requireForgotten(w *world) {
	w.t.Helper()
	require.Nil(w.t, w.record(), w.label)
	require.ErrorIs(w.t, w.engine.Renew(context.Background(), name), renewal.ErrUnknown)
	w.observe(w.label)
	for _, p := range w.places {
		served, err := w.wire(p)
		require.NoError(w.t, err)
		assert.Equal(w.t, w.before, served, "what was installed stays")
	}
	scratch, err := os.ReadDir(filepath.Join(w.root, "state", "snapshots"))
	require.NoError(w.t, err)
	assert.Empty(w.t, scratch, "scratch directories, which hold keys")
	w.requireTidy()
	w.count(1)
}

// begin makes the world that a scenario begins with.
func (s *scenario) begin(w *world) {
	w.tick = s.tick
	if s.enrolled {
		w.brokered, w.assigned = s.brokered, s.assigned
		w.enrol()
	}
	if !s.fresh {
		w.open()
		w.rest(1, time.Hour)
		rec := w.record()
		w.before = rec.Current.Fingerprint
		require.NoError(w.t, w.stop())
		if !s.early {
			w.pass(time.Until(rec.RenewAt) + time.Second)
		}
	}
	if s.prepare != nil {
		s.prepare(w)
	}
	w.platter, w.power = newPlatter(w.t, w.root), s.power
}

// finish checks a world at the scenario's end, and the facts and keys.
func (s *scenario) finish(w *world, renewals uint64) {
	if s.check != nil {
		s.check(w)
	} else {
		w.requireServed(renewals)
	}
	w.requireSwept()
	if s.check == nil {
		w.requireFacts(renewals)
	}
}

// restart ends the agent, and starts it again later: it must find nothing to do
// but its sweep.
func (s *scenario) restart(w *world, renewals uint64) {
	require.NoError(w.t, w.stop())
	w.pass(off)
	w.open()
	w.pass(time.Minute)
	s.finish(w, renewals)
}
