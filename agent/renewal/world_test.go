package renewal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"crypto"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

func (c *clock) advance(d time.Duration) { c.set(c.now().Add(d)) }

// world is a host, its authority and its programs.
type world struct {
	t      *testing.T
	dir    string
	clock  *clock
	ca     *authority
	issuer issuer.Issuer // ca, or something around it
	// standIn is asked when issuer cannot; nil if there is none.
	standIn *authority
	places  []*place
	point   func(string) // called at every step that a crash may follow
	tune    func(*Config)

	names     []string // of managed certificates
	reuse     bool     // their keys
	algorithm pki.KeyAlgorithm
	limits    Limits   // of the first issuer
	dns       []string // names of each, "" is <name>.example.com

	store *faultyStore
	keys  *faultyKeys
	e     *Engine
}

func newWorld(t *testing.T) *world {
	// The real time, because the age of key files is compared with it.
	c := &clock{at: time.Now().UTC().Truncate(time.Second)}
	w := &world{t: t, dir: privateDir(t), clock: c, ca: newAuthority(t, c.now), names: []string{"web"}, algorithm: pki.ECDSAP256, point: func(string) {}}
	w.issuer = w.ca
	for _, id := range []string{"front", "back"} {
		w.places = append(w.places, &place{t: t, id: id})
	}
	return w
}

// privateDir is t.TempDir as the store demands it, whatever the umask.
func privateDir(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	return dir
}

func (w *world) managed() []Managed {
	var list []Managed
	for _, name := range w.names {
		dns := w.dns
		if dns == nil {
			dns = []string{name + ".example.com"}
		}
		m := Managed{
			Name: name, Names: pki.MustParseNames(dns...), KeyAlgorithm: w.algorithm, ReuseKey: w.reuse,
			Issuers: []NamedIssuer{{Name: "ca", Issuer: w.issuer, Limits: w.limits}},
		}
		if w.standIn != nil {
			m.Issuers = append(m.Issuers, NamedIssuer{Name: "second", Issuer: w.standIn})
		}
		if len(w.names) == 1 {
			for _, p := range w.places {
				m.Deployments = append(m.Deployments, Deployment{ID: p.id, Target: p})
			}
		}
		list = append(list, m)
	}
	return list
}

// open starts an engine on what is on the disk, without its loop.
func (w *world) open() {
	w.t.Helper()
	s, err := store.Open(filepath.Join(w.dir, "state.db"), store.Options{Now: w.clock.now})
	require.NoError(w.t, err)
	k, err := keys.OpenDir(filepath.Join(w.dir, "keys"))
	require.NoError(w.t, err)
	w.store = &faultyStore{Store: s, point: func(label string) { w.point(label) }}
	w.keys = &faultyKeys{Keys: k, point: func(label string) { w.point(label) }}
	w.ca.point = func(label string) { w.point(label) }
	if w.standIn != nil {
		w.standIn.point = func(label string) { w.point("stand-in: " + label) }
	}
	for _, p := range w.places {
		p.point = func(label string) { w.point(label) }
	}
	cfg := Config{
		Store: w.store, Keys: w.keys, Managed: w.managed(), ScratchDir: filepath.Join(w.dir, "scratch"),
		Log: slog.New(slog.NewTextHandler(testWriter{w.t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now: w.clock.now,
	}
	if w.tune != nil {
		w.tune(&cfg)
	}
	w.e, err = New(cfg)
	require.NoError(w.t, err)
	require.NoError(w.t, w.e.start(w.t.Context()))
	w.t.Cleanup(w.close)
}

func (w *world) close() {
	if w.store == nil {
		return
	}
	w.e.jobs.Wait()
	assert.NoError(w.t, w.store.Store.(*store.Store).Close())
	w.store = nil
}

func (w *world) reopen() { w.close(); w.open() }

// tick looks at the schedule once and waits for what that started.
func (w *world) tick() {
	w.e.tick(w.t.Context())
	w.e.jobs.Wait()
}

// run ticks every step of the clock for d.
func (w *world) run(d, step time.Duration) {
	for end := w.clock.now().Add(d); w.clock.now().Before(end); w.clock.advance(step) {
		w.tick()
	}
}

func (w *world) record() *store.Certificate {
	w.t.Helper()
	rec, found, err := w.store.Certificate(w.names[0])
	require.NoError(w.t, err)
	require.True(w.t, found)
	return rec
}

// settleDown lets the engine finish what it can within two hours, which is
// nothing in the life of its certificates.
func (w *world) settleDown() *store.Certificate {
	w.t.Helper()
	for range 120 {
		w.tick()
		if rec := w.record(); rec.Phase == store.PhaseIdle && rec.Attempt == 0 && rec.NextAction.After(w.clock.now()) && rec.Current != nil {
			return rec
		}
		w.clock.advance(time.Minute)
	}
	w.t.Fatalf("does not settle: %+v", w.record())
	return nil
}

// toRenewal sets the clock to the moment of the next renewal.
func (w *world) toRenewal() {
	w.clock.set(w.record().RenewAt.Add(time.Second))
}

// requireServed checks that everything is as it should be after n renewals.
func (w *world) requireServed(n int) {
	w.t.Helper()
	rec := w.settleDown()
	require.EqualValues(w.t, n, rec.Renewals)
	require.Nil(w.t, rec.Next)
	require.Nil(w.t, rec.Previous)
	require.Empty(w.t, rec.OrderID)
	require.Equal(w.t, n, w.ca.issuedCount(), "certificates issued")
	leaf := leafOf(rec.Current)
	key, err := w.keys.Load(rec.Current.KeyID)
	require.NoError(w.t, err)
	require.NoError(w.t, pki.MatchKey(leaf, key))
	for _, p := range w.places {
		require.NoError(w.t, p.Verify(w.t.Context(), leaf), "place %s", p.id)
		require.Equal(w.t, p.certFile, p.keyFile)
		require.Equal(w.t, wire.DeploymentVerified, rec.Deployments[p.id].Outcome)
	}
	w.clock.advance(2 * time.Hour)
	w.e.sweep(w.clock.now())
	files, err := os.ReadDir(filepath.Join(w.dir, "keys"))
	require.NoError(w.t, err)
	require.Len(w.t, files, 1, "key files after a sweep")
}

func (w *world) events(kind wire.EventKind) (list []wire.Event) {
	w.t.Helper()
	all, err := w.store.Store.(*store.Store).Events(10_000)
	require.NoError(w.t, err)
	for _, e := range all {
		if e.Kind == kind {
			list = append(list, e)
		}
	}
	return list
}

// snapshot copies everything that survives a crash at this moment.
func (w *world) snapshot() *world {
	dir := privateDir(w.t)
	require.NoError(w.t, copyFile(filepath.Join(w.dir, "state.db"), filepath.Join(dir, "state.db")))
	require.NoError(w.t, os.Mkdir(filepath.Join(dir, "keys"), 0o700))
	files, err := os.ReadDir(filepath.Join(w.dir, "keys"))
	require.NoError(w.t, err)
	for _, f := range files {
		require.NoError(w.t, copyFile(filepath.Join(w.dir, "keys", f.Name()), filepath.Join(dir, "keys", f.Name())))
	}
	c := &clock{at: w.clock.now()}
	copied := &world{t: w.t, dir: dir, clock: c, ca: w.ca.clone(c.now), names: w.names, reuse: w.reuse, algorithm: w.algorithm, limits: w.limits, dns: w.dns, tune: w.tune, point: func(string) {}}
	copied.issuer = copied.ca
	if w.standIn != nil {
		copied.standIn = w.standIn.clone(c.now)
	}
	for _, p := range w.places {
		copied.places = append(copied.places, p.clone())
	}
	return copied
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// faultyStore is the real store with faults on both sides of the write.
type faultyStore struct {
	Store
	point func(string)

	mu      sync.Mutex
	writes  int
	failAt  int // number of the write that fails; 0 is none
	after   bool
	failure error
	room    error // of CheckRoom
}

var errDisk = fmt.Errorf("%w: input/output error", store.ErrStateUnknown)

func (s *faultyStore) fault() (now bool, after bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	return s.writes == s.failAt, s.after, s.failure
}

func (s *faultyStore) Update(name string, fn func(*store.CertificateTx) error) error {
	now, after, failure := s.fault()
	if now && !after {
		return failure
	}
	if err := s.Store.Update(name, fn); err != nil {
		return err
	}
	if now {
		return failure
	}
	s.point("store: after a commit")
	return nil
}

func (s *faultyStore) CheckRoom() error {
	s.mu.Lock()
	room := s.room
	s.mu.Unlock()
	return errors.Join(s.Store.CheckRoom(), room)
}

// hasRoom says what CheckRoom finds from now on.
func (s *faultyStore) hasRoom(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = err
}

func (s *faultyStore) SaveTurns(all map[string]store.Turns) error {
	return s.then("store: after a turn", s.Store.SaveTurns(all))
}

func (s *faultyStore) UpdateAll(names []string, fn func(*store.CertificateTx) error) error {
	return s.then("store: after a commit of many", s.Store.UpdateAll(names, fn))
}

func (s *faultyStore) Retire(names []string, at time.Time, fact func(*store.Certificate) wire.Event) error {
	return s.then("store: after setting aside", s.Store.Retire(names, at, fact))
}

func (s *faultyStore) Restore(names []string) error {
	return s.then("store: after taking back", s.Store.Restore(names))
}

func (s *faultyStore) Forget(name string, facts ...wire.Event) (*store.Removed, error) {
	forgotten, err := s.Store.Forget(name, facts...)
	return forgotten, s.then("store: after forgetting", err)
}

func (s *faultyStore) then(label string, err error) error {
	if err == nil {
		s.point(label)
	}
	return err
}

type faultyKeys struct {
	Keys
	point      func(string)
	failure    error // of Create
	unreadable error // of Load
}

func (k *faultyKeys) Load(id string) (crypto.Signer, error) {
	if k.unreadable != nil {
		return nil, k.unreadable
	}
	return k.Keys.Load(id)
}

func (k *faultyKeys) Create(alg pki.KeyAlgorithm) (string, crypto.Signer, error) {
	if k.failure != nil {
		return "", nil, k.failure
	}
	id, key, err := k.Keys.Create(alg)
	if err == nil {
		k.point("keys: after a new key")
	}
	return id, key, err
}

func (k *faultyKeys) Remove(id string) error {
	err := k.Keys.Remove(id)
	if err == nil {
		k.point("keys: after a removal")
	}
	return err
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}
