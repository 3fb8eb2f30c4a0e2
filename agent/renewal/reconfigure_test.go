package renewal

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// reload puts a list into effect, and nothing more.
func (w *world) reload(list []Managed) Changes {
	w.t.Helper()
	did, err := w.e.Reconfigure(list)
	require.NoError(w.t, err)
	return did
}

func (w *world) file() *store.Store { return w.store.Store.(*store.Store) }

func (w *world) removed() []RemovedCertificate {
	w.t.Helper()
	list, err := w.e.Removed()
	require.NoError(w.t, err)
	return list
}

func keepForAMonth(c *Config) { c.KeepRemoved = 30 * day }

// busyWorld runs fn while a step of the one certificate hangs, which goes on
// when fn returns.
func busyWorld(w *world, hang func(wait func()), fn func()) {
	begun, release := make(chan struct{}), make(chan struct{})
	once := false
	hang(func() {
		if !once {
			once = true
			close(begun)
			<-release
		}
	})
	w.e.tick(w.t.Context())
	<-begun
	fn()
	w.e.tick(w.t.Context()) // which must leave the certificate alone
	close(release)
	w.e.jobs.Wait()
}

func hangIssue(w *world) func(func()) {
	return func(wait func()) {
		w.ca.interfere(func(context.Context, *issuer.Order) error { wait(); return nil })
	}
}

func hangDeployment(p *place) func(func()) {
	return func(wait func()) {
		p.failWith(func(context.Context, *deploy.Task) error { wait(); return nil })
	}
}

func TestReloadDuringIssue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.open()
		list := w.managed()
		third := &place{t: t, id: "third", point: func(string) {}}
		list[0].Deployments = append(list[0].Deployments, Deployment{ID: "third", Target: third})
		var doing string
		busyWorld(w, hangIssue(w), func() {
			assert.Equal(t, Changes{Changed: []string{"web"}}, w.reload(list))
			status, err := w.e.Status()
			require.NoError(t, err)
			doing = status[0].Doing
		})
		assert.Equal(t, "obtaining", doing)
		w.places = append(w.places, third)
		w.requireServed(1)
		assert.Equal(t, 1, w.ca.orders(), "the order is the one that was under way")
	})
}

// Other names are another certificate: what was issued meanwhile is given up, as
// after a restart, and never deployed.
func TestReloadOfNamesDuringIssue(t *testing.T) {
	w := newWorld(t)
	w.open()
	list := w.managed()
	list[0].Names = pki.MustParseNames("www.example.com")
	busyWorld(w, hangIssue(w), func() { w.reload(list) })
	for _, p := range w.places {
		deploys, _ := p.counts()
		assert.Zero(t, deploys, "the old one is not deployed at %s", p.id)
	}
	rec := w.settleDown()
	assert.Equal(t, []string{"www.example.com"}, leafOf(rec.Current).DNSNames)
	assert.EqualValues(t, 1, rec.Renewals)
	assert.Equal(t, 2, w.ca.orders())
}

func TestReloadDuringDeployment(t *testing.T) {
	w := newWorld(t)
	w.open()
	list := w.managed()
	list[0].Deployments = list[0].Deployments[1:]
	list[0].Deployments[0].Config = "elsewhere"
	front, back := w.places[0], w.places[1]
	busyWorld(w, hangDeployment(front), func() { w.reload(list) })
	assert.NotEmpty(t, front.served, "its transaction was ended")
	w.places = w.places[1:]
	w.requireServed(1)
	assert.NotContains(t, w.record().Deployments, "front")
	assert.NoDirExists(t, w.e.scratch("web", "front"), "which holds keys")
	deploys, _ := back.counts()
	assert.Equal(t, 1, deploys)
	assert.Len(t, w.events(wire.EventDeployed), 2)
}

// A deployment that is configured in another way is carried out again, without
// an order, and one that failed is not waited for.
func TestReloadOfADeployment(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	list := w.managed()
	moved := &place{t: t, id: "front", point: func(string) {}}
	list[0].Deployments[0] = Deployment{ID: "front", Target: moved, Config: "elsewhere"}
	w.reload(list)
	w.tick()
	w.places[0] = moved
	w.requireServed(1)
	assert.Empty(t, w.events(wire.EventFailed), "a change is no failure")

	w.toRenewal()
	moved.failWith(func(context.Context, *deploy.Task) error {
		return &deploy.Error{Stage: deploy.StageReload, RolledBack: true, Err: assert.AnError}
	})
	w.tick()
	require.True(t, w.record().Deployments["front"].RetryAt.After(w.clock.now()))
	moved.failWith(nil)
	list[0].Deployments[0].Config = "mended"
	w.reload(list)
	w.tick()
	assert.EqualValues(t, 2, w.record().Renewals)
	w.requireServed(2)
}

func TestReloadAddsAndLeavesAlone(t *testing.T) {
	w := newWorld(t)
	w.names = []string{"web", "api"}
	w.open()
	w.settleDown()
	before := w.file().Commits()
	did := w.reload(w.managed())
	assert.Equal(t, Changes{Unchanged: 2}, did)
	assert.False(t, did.Any())
	w.tick()
	assert.Equal(t, before, w.file().Commits(), "what is unchanged is not written")

	w.names = []string{"new", "web", "api"}
	did = w.reload(w.managed())
	assert.Equal(t, Changes{Added: []string{"new"}, Unchanged: 2}, did)
	w.tick()
	w.requireNames("api", "new", "web")
	assert.Equal(t, 3, w.ca.issuedCount())
}

func (w *world) requireNames(names ...string) {
	w.t.Helper()
	status, err := w.e.Status()
	require.NoError(w.t, err)
	var got []string
	for _, s := range status {
		require.NotNil(w.t, s.Record.Current, s.Record.Name)
		got = append(got, s.Record.Name)
	}
	require.Equal(w.t, names, got)
}

// A list that cannot be used changes nothing.
func TestReloadOfAWrongListChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	list := w.managed()
	list[0].Issuers = nil
	_, err := w.e.Reconfigure(append(list, Managed{Name: "other"}, Managed{Name: "other"}))
	require.ErrorContains(t, err, `managed certificate "web": issuer is not set`)
	require.ErrorContains(t, err, `managed certificate "other"`)
	w.toRenewal()
	w.tick()
	w.requireServed(2)
	require.ErrorIs(t, w.e.Renew(t.Context(), "other"), ErrUnknown)
}

func TestRemovalAndReturn(t *testing.T) {
	w := newWorld(t)
	w.tune = keepForAMonth
	w.open()
	was := w.settleDown()
	removedAt := w.clock.now()
	assert.Equal(t, Changes{Removed: []string{"web"}}, w.reload(nil))
	w.run(29*day, 6*time.Hour)

	list := w.removed()
	require.Len(t, list, 1)
	assert.Equal(t, removedAt, list[0].RemovedAt)
	assert.Equal(t, removedAt.Add(30*day), list[0].KeptUntil)
	require.ErrorIs(t, w.e.Renew(t.Context(), "web"), ErrUnknown)
	status, err := w.e.Status()
	require.NoError(t, err)
	assert.Empty(t, status)
	events := w.events(wire.EventRemoved)
	require.Len(t, events, 1)
	assert.Equal(t, was.Current.Serial, events[0].Serial)
	deploys, _ := w.places[0].counts()

	w.reload(w.managed())
	w.tick()
	rec := w.record()
	assert.Equal(t, was.Current, rec.Current)
	assert.Equal(t, was.RenewAt, rec.RenewAt)
	assert.Empty(t, w.removed())
	w.requireServed(1)
	again, _ := w.places[0].counts()
	assert.Equal(t, deploys, again, "it was there all the time")
}

// A restart is like a reload.
func TestRemovalAndReturnOverRestarts(t *testing.T) {
	w := newWorld(t)
	w.tune = keepForAMonth
	w.open()
	w.settleDown()
	w.close()
	names := w.names
	w.names = nil
	w.open()
	w.run(10*day, day)
	require.Len(t, w.removed(), 1)
	w.reopen()
	require.Len(t, w.removed(), 1)
	w.close()
	w.names = names
	w.open()
	w.requireServed(1)
	assert.Len(t, w.events(wire.EventRemoved), 1)
}

// What comes back after other programs have written there is put into service
// again, with the pair that was kept.
func TestReturnPutsBackWhatIsNotServed(t *testing.T) {
	w := newWorld(t)
	w.tune = keepForAMonth
	w.open()
	w.settleDown()
	w.reload(nil)
	w.tick()
	w.places[0].set(func() { w.places[0].served, w.places[0].certFile, w.places[0].keyFile = "other", "other", "other" })
	w.run(day, time.Hour)
	assert.Equal(t, "other", w.places[0].served, "nobody looks after it")
	w.reload(w.managed())
	w.tick()
	w.requireServed(1)
}

// A removal while the order is under way ends the step, deploys nothing, and
// orders nothing; a return goes on with the same order.
func TestRemovalDuringOrder(t *testing.T) {
	for name, step := range map[string]func(w *world) func(func()){
		"issue":      hangIssue,
		"deployment": func(w *world) func(func()) { return hangDeployment(w.places[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.tune = keepForAMonth
			w.open()
			busyWorld(w, step(w), func() {
				w.reload(nil)
				require.Len(t, w.removed(), 1, "seen at once, though a step is under way")
			})
			w.run(10*day, time.Hour)
			require.Len(t, w.removed(), 1)
			assert.Equal(t, store.PhaseIssued, w.removed()[0].Record.Phase)
			deploys, _ := w.places[1].counts()
			assert.Zero(t, deploys, "the other place gets nothing")
			require.Equal(t, 1, w.ca.issuedCount())

			w.reload(w.managed())
			w.tick()
			w.requireServed(1)
			assert.Equal(t, 1, w.ca.orders())
		})
	}
}

func TestRemovedCertificateIsForgottenAtLast(t *testing.T) {
	w := newWorld(t)
	sure := false
	w.tune = func(c *Config) {
		keepForAMonth(c)
		c.Confirm = func(context.Context, string) bool { return sure }
	}
	w.open()
	rec := w.settleDown()
	w.reload(nil)
	w.tick()
	w.run(31*day, 6*time.Hour)
	require.Len(t, w.removed(), 1, "a clock that may be wrong deletes nothing")
	_, err := w.keys.Load(rec.Current.KeyID)
	require.NoError(t, err)

	sure = true
	w.run(time.Hour, time.Minute)
	assert.Empty(t, w.removed())
	_, err = w.keys.Load(rec.Current.KeyID)
	require.Error(t, err, "its key is deleted")
	entries, err := os.ReadDir(filepath.Join(w.dir, "scratch"))
	require.NoError(t, err)
	assert.Empty(t, entries)
	assert.Len(t, w.events(wire.EventRemoved), 2)
	assert.NotEmpty(t, w.places[0].served, "what is deployed stays")

	w.reload(w.managed())
	w.tick()
	assert.EqualValues(t, 1, w.record().Renewals, "it begins anew")
	assert.Equal(t, 2, w.ca.issuedCount())
}

// Records cannot follow while the disk is full, and do when it has room.
func TestReloadOnAFullDisk(t *testing.T) {
	w := newWorld(t)
	w.names = []string{"web", "api"}
	w.tune = keepForAMonth
	w.open()
	w.tick()
	full := &fullDisk{Store: w.e.cfg.Store, full: true}
	w.e.cfg.Store = full
	w.names = []string{"web", "new"}
	w.reload(w.managed())
	w.tick()
	require.NoError(t, w.e.fatal)
	status, err := w.e.Status()
	require.NoError(t, err)
	assert.Equal(t, "new", status[0].Record.Name)
	assert.Contains(t, status[0].Problem, "free some space")
	full.full = false
	w.clock.advance(2 * blockPause)
	w.tick()
	w.requireNames("new", "web")
	require.Len(t, w.removed(), 1)
}

type fullDisk struct {
	Store
	full bool
}

func (s *fullDisk) Retire(names []string, at time.Time, fact func(*store.Certificate) wire.Event) error {
	if s.full {
		return errNoSpace
	}
	return s.Store.Retire(names, at, fact)
}

func (s *fullDisk) UpdateAll(names []string, fn func(*store.CertificateTx) error) error {
	if s.full {
		return errNoSpace
	}
	return s.Store.UpdateAll(names, fn)
}

// A change of names that is taken back leaves no place with the other names, though
// it was given the newer pair already.
func TestChangeOfNamesThatIsTakenBack(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	mend := w.places[1].breakDown()
	other := w.managed()
	other[0].Names = pki.MustParseNames("www.example.com")
	w.reload(other)
	w.run(10*time.Minute, 30*time.Second)
	rec := w.record()
	require.Equal(t, rec.Next.Fingerprint, w.places[0].served)
	require.Equal(t, rec.Current.Fingerprint, w.places[1].served)
	mend()
	w.reload(w.managed())
	w.run(10*time.Minute, 30*time.Second)
	rec = w.record()
	assert.Equal(t, []string{"web.example.com"}, leafOf(rec.Current).DNSNames)
	assert.Equal(t, rec.Current.Fingerprint, w.places[0].served)
	assert.Equal(t, rec.Current.Fingerprint, w.places[1].served)
	assert.EqualValues(t, 1, rec.Renewals, "nothing was ordered for it")
	assert.Equal(t, 2, w.ca.issuedCount())
}

// Until a certificate is replaced, its status says that it is of the configuration
// before.
func TestServedAsConfiguredBefore(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	former := func() bool {
		t.Helper()
		status, err := w.e.Status()
		require.NoError(t, err)
		return status[0].Former
	}
	assert.False(t, former())
	list := w.managed()
	list[0].Names = pki.MustParseNames("web.example.com", "www.example.com")
	w.reload(list)
	assert.True(t, former(), "at once")
	w.tick()
	assert.True(t, former(), "and until it is replaced")
	w.run(10*time.Minute, 30*time.Second)
	require.EqualValues(t, 2, w.record().Renewals)
	assert.False(t, former())
}

// What is reported is what is served: the names in the certificate, while those
// that are configured now are refused, and that it is of the configuration before.
func TestReportWhileNewNamesAreRefused(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	reported := func() wire.Summary {
		t.Helper()
		changes, err := w.file().Changes(0, 1)
		require.NoError(t, err)
		require.Len(t, changes.Rows, 1)
		row, err := changes.Rows[0].Summary()
		require.NoError(t, err)
		return row
	}
	before := reported()
	assert.Equal(t, []string{"web.example.com"}, before.Names.Strings())
	assert.False(t, before.Former)

	w.ca.interfere(failing(issuer.Error{Class: issuer.ClassRefused}))
	list := w.managed()
	list[0].Names = pki.MustParseNames("web.example.org")
	w.reload(list)
	w.tick()
	at := reported()
	w.run(10*time.Minute, 30*time.Second)
	refused := reported()
	require.NotZero(t, refused.Attempt)
	for _, row := range []wire.Summary{at, refused} {
		assert.Equal(t, before.Serial, row.Serial)
		assert.Equal(t, []string{"web.example.com"}, row.Names.Strings())
		assert.True(t, row.Former)
	}

	w.ca.interfere(nil)
	w.settleDown()
	after := reported()
	assert.NotEqual(t, before.Serial, after.Serial)
	assert.Equal(t, []string{"web.example.org"}, after.Names.Strings())
	assert.False(t, after.Former)
}

// Who asks for a renewal right after a reload waits for that, and is told when it
// takes too long.
func TestRenewRightAfterAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.open()
		w.settleDown()
		list := w.managed()
		list[0].Names = pki.MustParseNames("www.example.com")
		w.reload(list)
		asked := make(chan error, 1)
		go func() { asked <- w.e.Renew(t.Context(), "web") }()
		synctest.Wait()
		assert.Empty(t, asked, "it waits")
		w.tick()
		require.NoError(t, <-asked)
		// The tick that took the reload over may have got as far as the renewal.
		rec := w.record()
		assert.True(t, rec.Forced || rec.Renewals == 2, "%+v", rec)

		w.reload(w.managed())
		require.ErrorIs(t, w.e.Renew(t.Context(), "web"), ErrReloading)
	})
}

// An issuer that is set up in another way is asked soon, whatever pause its
// failures had come to, and goes on with the order.
func TestReloadOfAnIssuer(t *testing.T) {
	w := newWorld(t)
	w.ca.interfere(func(_ context.Context, order *issuer.Order) error {
		return &issuer.Error{Class: issuer.ClassConfig, Err: assert.AnError, Mend: "mend the section"}
	})
	w.open()
	w.run(6*time.Hour, 10*time.Minute)
	w.clock.set(w.record().RetryAt)
	w.tick()
	failed := w.record()
	require.Greater(t, failed.RetryAt.Sub(w.clock.now()), time.Minute)
	w.ca.interfere(nil)
	list := w.managed()
	assert.Equal(t, Changes{Unchanged: 1}, w.reload(list))
	w.tick()
	assert.Equal(t, failed.RetryAt, w.record().RetryAt, "nothing was mended")

	list[0].Issuers[0].Config = "another key"
	assert.Equal(t, Changes{Changed: []string{"web"}}, w.reload(list))
	w.run(time.Minute, 5*time.Second)
	rec := w.record()
	assert.EqualValues(t, 1, rec.Renewals)
	assert.Equal(t, failed.Next.KeyID, rec.Current.KeyID, "with the order that was begun")
}
