package renewal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/pki"
)

// countingStore counts what an engine reads and changes, of one certificate and
// of all at once.
type countingStore struct {
	Store
	reads, updates, ofAll atomic.Int64
}

func (s *countingStore) Certificate(name string) (*store.Certificate, bool, error) {
	s.reads.Add(1)
	return s.Store.Certificate(name)
}

func (s *countingStore) Update(name string, fn func(*store.CertificateTx) error) error {
	s.updates.Add(1)
	return s.Store.Update(name, fn)
}

func (s *countingStore) UpdateAll(names []string, fn func(*store.CertificateTx) error) error {
	s.ofAll.Add(1)
	return s.Store.UpdateAll(names, fn)
}

func (s *countingStore) Names() ([]string, error) {
	s.ofAll.Add(1)
	return s.Store.Names()
}

func (s *countingStore) Removed() ([]store.Removed, error) {
	s.ofAll.Add(1)
	return s.Store.Removed()
}

func (s *countingStore) KeyIDs() (map[string]bool, error) {
	s.ofAll.Add(1)
	return s.Store.KeyIDs()
}

// busy is an authority that is never ready.
type busy struct{}

func (busy) Kind() string { return "test" }

func (busy) Issue(context.Context, *issuer.Order) (*issuer.Issued, error) {
	return nil, &issuer.Error{Class: issuer.ClassPending, Err: errors.New("not yet")}
}

// crowd is an engine with n certificates of which due are in the middle of an
// order that is due again every minute, and the others have long to go.
type crowd struct {
	e     *Engine
	store *countingStore
	file  *store.Store
	clock *clock
}

func newCrowd(tb testing.TB, n, due int) *crowd { return newLimitedCrowd(tb, n, due, Limits{}) }

func newLimitedCrowd(tb testing.TB, n, due int, limits Limits) *crowd {
	tb.Helper()
	dir := tb.TempDir()
	c := &crowd{clock: &clock{at: drillStart}}
	k, err := keys.OpenDir(filepath.Join(dir, "keys"))
	require.NoError(tb, err)
	keyID, _, err := k.Create(pki.ECDSAP256)
	require.NoError(tb, err)
	c.file, err = store.Open(filepath.Join(dir, "state", "state.db"), store.Options{Now: c.clock.now})
	require.NoError(tb, err)
	tb.Cleanup(func() { assert.NoError(tb, c.file.Close()) })
	c.store = &countingStore{Store: c.file}
	cfg := Config{
		Store: c.store, Keys: k, ScratchDir: filepath.Join(dir, "scratch"), Log: slog.New(slog.DiscardHandler),
		Now: c.clock.now, Rand: func() float64 { return 0 }, VerifyInterval: 1000 * day,
	}
	for i := range n {
		name := fmt.Sprintf("c%06d", i)
		cfg.Managed = append(cfg.Managed, Managed{
			Name: name, Names: pki.MustParseNames(name + ".example.com"), KeyAlgorithm: pki.ECDSAP256,
			Issuers: []NamedIssuer{{Name: "ca", Issuer: busy{}, Limits: limits}},
		})
	}
	c.e, err = New(cfg)
	require.NoError(tb, err)
	for begin := 0; begin < n; begin += 5000 {
		require.NoError(tb, c.file.UpdateAll(c.e.configured().names[begin:min(begin+5000, n)], func(tx *store.CertificateTx) error {
			m := c.e.configured().managed[tx.Record.Name]
			*tx.Record = *inServiceSubject(m.Name, 90*day, day).Record
			tx.Record.Deployments, tx.Record.ConfigDigest, tx.Record.Current.ConfigDigest = nil, m.digest, m.digest
			reconciled(tx.Record, m, c.clock.now(), 0)
			if m.Name < fmt.Sprintf("c%06d", due) {
				if err := begun(tx.Record, m, keyID, "order", c.clock.now()); err != nil {
					return err
				}
			}
			settle(tx.Record, m, c.e.facts(m.Name))
			return nil
		}))
	}
	return c
}

// tick looks at the schedule a minute later.
func (c *crowd) tick(tb testing.TB) {
	c.clock.advance(2 * time.Minute)
	c.e.tick(tb.Context())
	c.e.jobs.Wait()
}

// tickCost is what five ticks cost.
type tickCost struct {
	reads, updates, ofAll int64  // calls of the store
	looked, commits       uint64 // keys of the schedule, and transactions that were written
}

// A tick looks at, reads and writes what is due, however many certificates there
// are. agent/store's TestDueCostsWhatIsDue counts the same of a schedule of
// 100,000; an engine with so many is for BenchmarkTick, since it takes longer to
// make than all of this.
func TestTickCostsWhatIsDue(t *testing.T) {
	const due, ticks = 10, 5
	for _, n := range []int{100, 1_000, 10_000} {
		c := newCrowd(t, n, due)
		c.tick(t) // the first one sweeps
		c.store.reads.Store(0)
		c.store.updates.Store(0)
		c.store.ofAll.Store(0)
		looked, commits := c.file.Looked(), c.file.Commits()
		for range ticks {
			c.tick(t)
		}
		// Each one that is due is read to see what is to be done and once more for
		// what comes after it, and its order is asked for in between.
		assert.Equal(t, tickCost{reads: 2 * ticks * due, updates: ticks * due, looked: ticks * (due + 1), commits: ticks * due}, tickCost{
			reads: c.store.reads.Load(), updates: c.store.updates.Load(), ofAll: c.store.ofAll.Load(),
			looked: c.file.Looked() - looked, commits: c.file.Commits() - commits,
		}, "%d due of %d", due, n)
	}
}

// An hour in which nothing is due, and a start on records that are as they
// should be, write nothing at all.
func TestIdleWritesNothing(t *testing.T) {
	c := newCrowd(t, 1000, 0)
	require.NoError(t, c.e.start(t.Context()))
	commits := c.file.Commits()
	require.NoError(t, c.e.start(t.Context()))
	for range 60 {
		c.clock.advance(time.Minute)
		c.e.tick(t.Context())
		c.e.jobs.Wait()
	}
	assert.Equal(t, commits, c.file.Commits())
	assert.Zero(t, c.store.reads.Load(), "nor is anything read")

	// One that is due costs its own steps and no more.
	require.ErrorIs(t, c.e.Renew(t.Context(), "none"), ErrUnknown)
	require.NoError(t, c.e.Renew(t.Context(), "c000007"))
	c.e.tick(t.Context())
	c.e.jobs.Wait()
	spent := c.file.Commits() - commits
	assert.Positive(t, spent)
	assert.LessOrEqual(t, spent, uint64(5))
}

// Ten thousand that wait for one issuer's turns: what each one and a status cost
// grows with the logarithm of their number.
func TestALongLineCostsLittle(t *testing.T) {
	limits := Limits{OrdersPerHour: 100} // the default for public authorities
	perCertificate := make(map[int]int)
	for _, n := range []int{100, 10_000} {
		turns := newTurns(nil)
		turns.lines["ca"] = newLine()
		turns.lines["ca"].EarnedAt = drillStart.Add(2 * time.Hour) // spent
		iss := NamedIssuer{Name: "ca", Limits: limits}
		recs := make([]*store.Certificate, n)
		for i := range recs {
			// Each has moments of its own, and they come in no order.
			recs[i] = inServiceSubject(fmt.Sprintf("c%06d", i), 90*day, 61*day+time.Duration(i*7919%n)*time.Second).Record
			recs[i].Forced = i%2 == 0
		}
		look := func(now time.Time) {
			for _, rec := range recs {
				require.True(t, turns.at(iss, rec, now).After(now))
			}
		}
		look(drillStart) // all come to the line
		look(drillStart.Add(time.Second))
		require.Len(t, turns.lines["ca"].waiting.byName, n)
		perCertificate[n] = turns.lines["ca"].waiting.compared / n
		// Who is called when one turn has come is found without a look at the others.
		turns.lines["ca"].waiting.compared = 0
		called := turns.called(func(string, string) (Limits, bool) { return limits, true }, drillStart.Add(time.Second+limits.interval()))
		require.Len(t, called, 1)
		require.LessOrEqual(t, turns.lines["ca"].waiting.compared, 200)
	}
	counts.Report(t, "line-comparisons", perCertificate[10_000], "comparisons for each of 10000 certificates that come to a line and are looked at again")
	// Twice as many digits are twice as many comparisons, and a few searches each.
	assert.LessOrEqual(t, perCertificate[10_000], 3*perCertificate[100])
	assert.LessOrEqual(t, perCertificate[10_000], 150)
}

// A status of certificates that wait for turns reads each once and compares few.
func TestStatusOfALongLine(t *testing.T) {
	const n = 3000
	c := newLimitedCrowd(t, n, 0, Limits{OrdersPerHour: 100})
	require.NoError(t, c.file.UpdateAll(c.e.configured().names, func(tx *store.CertificateTx) error {
		tx.Record.Forced = true
		return nil
	}))
	l := newLine()
	l.EarnedAt = c.clock.now().Add(2 * time.Hour) // spent
	c.e.turns.lines["ca"] = l
	for range 2 { // the first brings all to the line
		c.store.reads.Store(0)
		l.waiting.compared = 0
		status, err := c.e.Status()
		require.NoError(t, err)
		for _, s := range status {
			require.Equal(t, "ca", s.WaitsFor)
		}
	}
	assert.EqualValues(t, n, c.store.reads.Load())
	assert.LessOrEqual(t, l.waiting.compared, 40*n)
	assert.Zero(t, c.store.updates.Load())
}

// BenchmarkTick shows that a tick costs what is due and not what exists.
func BenchmarkTick(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("10-of-%d", n), func(b *testing.B) {
			c := newCrowd(b, n, 10)
			c.tick(b)
			for b.Loop() {
				c.tick(b)
			}
		})
	}
}
