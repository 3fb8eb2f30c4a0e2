//go:build unix

package crashtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/agent/deploy/file"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	agentsync "github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/durable"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is when every bubble of virtual time begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// name of the managed certificate.
const name = "web"

// bench is what all worlds of a test share.
type bench struct {
	dir   string // where their disks are
	web   *web
	seed  uint64
	disks atomic.Int64

	mu    sync.Mutex
	steps map[durable.Step]int // how often each was met

	scenarios    atomic.Int64 // that were enumerated
	points       atomic.Int64 // states that an agent was started on
	power        atomic.Int64 // of these, after a power failure
	second       atomic.Int64 // of these, after a second crash
	observations atomic.Int64 // looks at a program and its files
	duplicates   atomic.Int64 // certificates beyond one for each renewal
	mismatches   atomic.Int64 // looks that met no, a foreign or a mixed pair
	windows      atomic.Int64 // looks between the renames of a pair of separate files
	held         atomic.Int64 // looks at a place that had refused a pair, before the next attempt
	facts        atomic.Int64 // facts that had to be told
	lost         atomic.Int64
	twice        atomic.Int64
	orphans      atomic.Int64 // key files that nothing refers to, after the sweep
}

func newBench(t *testing.T) *bench {
	t.Helper()
	// In memory where the system has that: the enumeration syncs some hundred
	// thousand times, and what a sync does is not its subject.
	dir, err := os.MkdirTemp("/dev/shm", "certctl-test-")
	if err == nil {
		t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	} else {
		dir = t.TempDir()
	}
	b := &bench{dir: dir, web: startWeb(t), seed: 1, steps: map[durable.Step]int{}}
	_ = testRoot() // made outside of virtual time
	return b
}

func (b *bench) disk(t testing.TB) string {
	dir := filepath.Join(b.dir, fmt.Sprintf("world-%08d", b.disks.Add(1)))
	require.NoError(t, os.Mkdir(dir, 0o700))
	return dir
}

// world is a host with its programs, and the authorities that it asks. The part
// of it that survives a crash is what clone copies.
type world struct {
	t     *testing.T
	bench *bench
	root  string // its disk
	at    time.Time
	// label is the step that it is a copy of.
	label string

	ca, standIn *authority
	places      []*place
	centre      *centre // the host's coordinator; nil if it has none
	settings
	tick time.Duration

	// before is what was in service when the scenario began; "" if nothing was.
	before string

	// opened, when set, is called once, with the store before anything uses it.
	opened    func()
	recording atomic.Bool
	platter   *platter     // not nil where steps are held to what they promise
	power     bool         // fails, where otherwise the agent crashes
	underWay  atomic.Int64 // steps; those that failed are still counted
	// unconfirmed is what a crash has left that a power failure would not have.
	unconfirmed unconfirmed
	watching    bool         // observes at each step
	untidy      bool         // a snapshot could not be removed
	held        atomic.Int64 // looks at a place that had refused a pair, before the next attempt
	// strike, when set, is asked before and after each step.
	strike  func(step durable.Step, path string, done bool) error
	commits sync.RWMutex // held while the state file is written
	points  struct {
		sync.Mutex
		list []*world
	}
	random *rand.Rand

	store    *store.Store
	accounts *keys.Dir
	engine   *renewal.Engine
	syncer   *agentsync.Client // nil if there is no coordinator
	desired  chan struct{}     // holds one when the coordinator wants something else
	ended    <-chan struct{}   // closed when the engine has ended, by itself or not
	stop     func() error
}

// settings are the agent's configuration.
type settings struct {
	dns string
	// removed is a configuration without the certificate, and keep how long it is
	// kept then.
	removed bool
	keep    time.Duration
	// reuse keeps the key from renewal to renewal.
	reuse  bool
	limits renewal.Limits
	// brokered is a certificate of the coordinator, and assigned one that it
	// defines.
	brokered, assigned bool
}

// place is a deployment and the program behind it.
type place struct {
	id   string
	kept *kept
	*program
}

// newWorld makes a host with nothing on it. It is called in a bubble.
func newWorld(t *testing.T, b *bench, layouts ...file.Layout) *world {
	w := &world{t: t, bench: b, root: b.disk(t), ca: newAuthority("ca"), settings: settings{dns: "web.example.com"}}
	require.NoError(t, os.Mkdir(filepath.Join(w.root, "www"), 0o755))
	for _, layout := range layouts {
		id := string(layout)
		p := &program{layout: layout}
		dir := filepath.Join(w.root, "www", id)
		switch layout {
		case combined:
			p.layout, p.paths = file.LayoutFiles, file.Paths{Combined: filepath.Join(dir, "combined.pem")}
		default:
			p.paths = file.Paths{FullChain: filepath.Join(dir, "fullchain.pem"), Key: filepath.Join(dir, "key.pem")}
		}
		w.places = append(w.places, &place{id: id, kept: new(kept), program: p})
	}
	return w
}

// combined is LayoutFiles with one file for all.
const combined file.Layout = "combined"

func (w *world) sni(p *place) string { return p.id + "." + filepath.Base(w.root) + ".test" }

// open starts what is on the disk, with its programs as they are.
func (w *world) open() {
	w.t.Helper()
	require.NoError(w.t, w.tryOpen())
}

func (w *world) tryOpen() (err error) {
	w.random = rand.New(rand.NewPCG(w.bench.seed, uint64(len(w.label))))
	state := filepath.Join(w.root, "state")
	if err := durable.EnsurePrivateDir(state); err != nil {
		return err
	}
	if w.store, err = store.Open(filepath.Join(state, "state.db"), store.Options{Hook: w.hook}); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.store.Close())
		}
	}()
	if w.opened != nil {
		w.opened()
		w.opened = nil
	}
	var dirs [3]*keys.Dir
	for i, kind := range keyDirectories {
		dir, err := keys.OpenDir(w.keys(kind))
		if err != nil {
			return err
		}
		dirs[i] = dir.WithHook(w.hook)
	}
	w.accounts = dirs[1]
	w.desired = make(chan struct{}, 1)
	syncer, err := w.connect(dirs[2])
	if err != nil {
		return err
	}
	w.syncer = syncer
	for _, p := range w.places {
		w.bench.web.host(w.sni(p), p.program)
	}
	list, err := w.configured()
	if err != nil {
		return err
	}
	w.engine, err = renewal.New(renewal.Config{
		Store: w.store, Keys: dirs[0], Swept: []renewal.Sweeper{dirs[1], dirs[2]}, Managed: list, ScratchDir: filepath.Join(state, "snapshots"),
		Pace: renewal.Pace{TickInterval: cmp.Or(w.tick, time.Minute), KeepRemoved: w.keep}, Log: slog.New(slog.DiscardHandler), Hook: w.hook, Rand: w.random.Float64,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	parts := []func(context.Context) error{w.engine.Run}
	if syncer != nil {
		w.engine.OnChange(syncer.Kick)
		parts = append(parts, syncer.Run)
	}
	if w.assigned {
		if err := w.start(); err != nil {
			cancel()
			return err
		}
		parts = append(parts, w.follow)
	}
	done := make(chan error, len(parts))
	ended := make(chan struct{})
	var running sync.WaitGroup
	for _, run := range parts {
		running.Go(func() {
			done <- run(ctx)
			cancel() // one does not go on without the other
		})
	}
	go func() {
		running.Wait()
		close(ended)
	}()
	w.ended = ended
	w.stop = sync.OnceValue(func() error {
		cancel()
		<-ended
		close(done)
		var errs []error
		for err := range done {
			errs = append(errs, err)
		}
		return errors.Join(append(errs, w.store.Close())...)
	})
	w.t.Cleanup(func() { _ = w.stop() }) // of a test that failed; once is enough
	return nil
}

// configured is what the agent manages when it starts.
func (w *world) configured() ([]renewal.Managed, error) {
	if !w.assigned {
		return w.managed(w.syncer)
	}
	list, _, err := w.adopt()
	return list, err
}

// keyDirectories are those of an agent.
var keyDirectories = []string{"certificates", "accounts", "identity"}

func (w *world) keys(kind string) string { return filepath.Join(w.root, "state", "keys-"+kind) }

// close ends the agent in order.
func (w *world) close() {
	w.t.Helper()
	assert.NoError(w.t, w.stop())
	for _, p := range w.places {
		w.bench.web.drop(w.sni(p))
	}
}

// pass lets virtual time pass, and returns when everything waits.
func (w *world) pass(d time.Duration) {
	require.NoError(w.t, backoff.Wait(context.Background(), d))
	synctest.Wait()
}

func (w *world) record() *store.Certificate {
	w.t.Helper()
	rec, found, err := w.store.Certificate(name)
	require.NoError(w.t, err)
	if !found {
		return nil
	}
	return rec
}

// rest waits until n renewals are over and nothing is left to do, for at most
// the time given.
func (w *world) rest(n uint64, limit time.Duration) {
	w.t.Helper()
	synctest.Wait()
	for end := time.Now().Add(limit); ; w.pass(cmp.Or(w.tick, time.Minute)) {
		rec := w.record()
		if settled(rec, n) && (w.centre == nil || w.agreed()) {
			return
		}
		if !time.Now().Before(end) {
			require.FailNowf(w.t, "does not come to rest", "%s: %+v", w.label, rec)
		}
	}
}

func settled(rec *store.Certificate, n uint64) bool {
	return rec != nil && rec.Phase == store.PhaseIdle && rec.Attempt == 0 && rec.Renewals >= n && rec.NextAction.After(time.Now())
}

// hook is called around every durable step of the agent.
func (w *world) hook(step durable.Step, path string, done bool) error {
	w.bench.met(step)
	if done && strings.HasPrefix(string(step), "keys: ") && filepath.Ext(path) == ".pem" {
		// The ages of key files are told by virtual time. It may be gone already.
		_ = os.Chtimes(path, time.Now(), time.Now())
	}
	// Nobody looks at the state file while a commit writes it: a copy is to be
	// what a disk can hold.
	committing := commits(step) && w.recording.Load()
	if committing && !done {
		w.commits.Lock()
	}
	if done {
		w.underWay.Add(-1)
	} else {
		w.underWay.Add(1)
	}
	if w.platter != nil {
		w.platter.follow(step, path, done)
	}
	w.crashPoint(step, done, committing)
	if w.watching {
		w.observe(fmt.Sprintf("%s: at %s", w.label, step))
	}
	var err error
	if w.strike != nil {
		err = w.strike(step, path, done)
	}
	if committing && (done || err != nil) {
		w.commits.Unlock()
	}
	return err
}

// hookAt is hook for a deployment, whose program does its part.
func (w *world) hookAt(p *place, step durable.Step, path string, done bool) error {
	if !done {
		p.kept.begins(step, w.transactionOpen(p))
	}
	if err := w.hook(step, path, done); err != nil {
		return err
	}
	switch {
	case done && step == "deploy/file: verify":
		p.kept.verified(p.serving())
	case done:
	case step == "deploy/file: close transaction" && w.platter != nil:
		// From here on there is no way back, and none to what comes.
		if err := w.platter.holdsAll(p.paths.FullChain, p.paths.Key, p.paths.Combined); err != nil {
			w.t.Errorf("%s: the deployment to %s ends, and a power failure would undo it: %v", w.label, p.id, err)
		}
	case step == "deploy/file: check":
		return p.check()
	case step == "deploy/file: reload":
		return p.reload()
	case step == "deploy/file: verify":
		return p.tried()
	}
	return nil
}

func (b *bench) met(step durable.Step) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.steps[step]++
}

// crashPoint copies the world, if a scenario is being recorded.
func (w *world) crashPoint(step durable.Step, done, committing bool) {
	if !w.recording.Load() {
		return
	}
	if !committing {
		w.commits.RLock()
		defer w.commits.RUnlock()
	}
	w.points.Lock()
	defer w.points.Unlock()
	side := "before"
	if done {
		side = "after"
	}
	label := fmt.Sprintf("%03d %s %s", len(w.points.list)+1, side, step)
	w.observe(label)
	if !w.power {
		c := w.clone(label)
		if w.platter != nil && w.alone(done) {
			c.unconfirmed = w.platter.unconfirmed()
		}
		w.points.list = append(w.points.list, c)
		return
	}
	w.points.list = append(w.points.list, w.powerFails(label)...)
}

// alone reports whether no other step is under way than the one that begins, if
// one does. What is in the middle of one is not held against the next agent: it
// cannot tell a directory that was made and not synced from any other.
func (w *world) alone(done bool) bool {
	others := w.underWay.Load()
	if !done {
		others--
	}
	return others == 0
}

// commits reports whether a step is a transaction of the store.
func commits(step durable.Step) bool { return strings.HasPrefix(string(step), "store: commit ") }
