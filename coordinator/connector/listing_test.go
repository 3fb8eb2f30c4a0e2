package connector_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
)

// account is an authority's account with so many certificates, each of a key of its own,
// of which a list has ten to a page. A request takes a millisecond.
type account struct {
	mu           sync.Mutex
	size         int
	pages, reads int
	fail         func() error
	passing      map[string]bool
	from         []time.Time
	takes        time.Duration
}

var errTooMuch = &connector.Error{Class: connector.ClassNeedsPerson, Detail: "too much"}

func (a *account) listing() *connector.Listing {
	return connector.NewListing(connector.ListingConfig{Page: a.page, Read: a.read, Most: 500, Pages: 100, TooMany: errTooMuch, Skew: time.Minute, Now: time.Now})
}

func (a *account) answer(ctx context.Context) error {
	time.Sleep(max(a.takes, time.Millisecond))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail != nil {
		return a.fail()
	}
	return nil
}

func (a *account) page(ctx context.Context, from, _ time.Time, place string) (list []connector.Listed, next string, err error) {
	if err := a.answer(ctx); err != nil {
		return nil, "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pages++
	a.from = append(a.from, from)
	at, _ := strconv.Atoi(place)
	for i := at; i < min(at+10, a.size); i++ {
		list = append(list, connector.Listed{ID: fmt.Sprint("c", i)})
	}
	if at+10 < a.size {
		next = strconv.Itoa(at + 10)
	}
	return list, next, nil
}

func (a *account) read(ctx context.Context, id string) (connector.Listed, error) {
	if err := a.answer(ctx); err != nil {
		return connector.Listed{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reads++
	return connector.Listed{Keys: []string{"key of " + id}, Passing: a.passing[id]}, nil
}

// counted are the pages and certificates that were read since the last time.
func (a *account) counted() (pages, reads int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pages, reads = a.pages, a.reads
	a.pages, a.reads = 0, 0
	return pages, reads
}

func (a *account) grow(size int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.size = size
}

// Many who look for something at the same time have it read once.
func TestAListIsReadOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{size: 95, passing: map[string]bool{"c7": true}}
		l := a.listing()
		since := time.Now()
		find := func(key string, old time.Duration) []string {
			ids, err := l.Find(t.Context(), since, key, old)
			assert.NoError(t, err)
			return ids
		}
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				ids := find(fmt.Sprint("key of c", i), 0)
				if i < 95 {
					assert.Equal(t, []string{fmt.Sprint("c", i)}, ids)
				} else {
					assert.Empty(t, ids)
				}
			})
		}
		all.Wait()
		pages, reads := a.counted()
		assert.Equal(t, 10, pages)
		assert.Equal(t, 95, reads)

		time.Sleep(time.Minute)
		assert.Len(t, find("key of c3", 2*time.Minute), 1, "it may be as old")
		pages, reads = a.counted()
		assert.Zero(t, pages+reads)

		a.grow(96)
		assert.Len(t, find("key of c95", 30*time.Second), 1, "what was read before is too old")
		pages, reads = a.counted()
		assert.Equal(t, 10, pages)
		assert.Equal(t, 2, reads, "the new one, and the one that is not certain")

		// Orders of about the same time have the same list.
		_, err := l.Find(t.Context(), since.Add(20*time.Minute), "key of c1", time.Minute)
		require.NoError(t, err)
		pages, reads = a.counted()
		assert.Equal(t, 10, pages)
		assert.Equal(t, 1, reads)
		for _, from := range a.from[:20] {
			assert.Equal(t, a.from[0], from)
			assert.False(t, from.After(since.Add(-time.Minute)), "a part of it is not read")
			assert.Less(t, since.Sub(from), 17*time.Minute)
		}
		assert.True(t, a.from[20].After(a.from[0]))
	})
}

// Who comes while it is being read has the answer only if what is read is new enough
// for that; else it is read again.
func TestAReadingCountsFromItsBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{size: 40, takes: 100 * time.Millisecond} // 4.4 s
		l := a.listing()
		since := time.Now()
		var all sync.WaitGroup
		all.Go(func() { _, _ = l.Find(t.Context(), since, "", 0) })
		time.Sleep(2 * time.Second)
		a.grow(41)
		all.Go(func() {
			ids, err := l.Find(t.Context(), since, "key of c40", 3*time.Second)
			assert.NoError(t, err)
			assert.Empty(t, ids, "as it was two seconds ago")
		})
		all.Go(func() {
			ids, err := l.Find(t.Context(), since, "key of c40", time.Second)
			assert.NoError(t, err)
			assert.Len(t, ids, 1, "as it was a second ago")
		})
		all.Wait()
		pages, reads := a.counted()
		assert.Equal(t, 9, pages)
		assert.Equal(t, 41, reads)
	})
}

// A reading that breaks off goes on where it was, with whoever asks next, however many
// requests fail; what it began with stays its beginning.
func TestAReadingGoesOnWhereItBrokeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		failed := 0
		a := &account{size: 200, fail: func() error {
			if random.Float64() < 0.9 {
				failed++
				return errors.New("no answer")
			}
			return nil
		}}
		l := a.listing()
		since, began := time.Now(), time.Now()
		for i := range 20 {
			for {
				ids, err := l.Find(t.Context(), since, fmt.Sprint("key of c", i), time.Since(began))
				if err == nil {
					assert.Len(t, ids, 1)
					break
				}
				assert.Equal(t, connector.ClassRetry, connector.Classify(err).Class)
			}
		}
		pages, reads := a.counted()
		assert.Equal(t, 20, pages)
		assert.Equal(t, 200, reads)
		assert.Greater(t, failed, 1000)
	})
}

// Who asks seldom comes to an end as well, where every other request fails: what is
// being read is the latest, however long ago it was begun. What has come to its end is so
// for seconds.
func TestWhatIsBeingReadIsTheLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failing := false
		a := &account{size: 12, fail: func() error {
			if failing = !failing; !failing {
				return errors.New("no answer")
			}
			return nil
		}}
		l := a.listing()
		since := time.Now()
		calls := 0
		for ; calls < 100; calls++ {
			if ids, err := l.Latest(t.Context(), since, "key of c3"); err == nil {
				assert.Len(t, ids, 1)
				break
			}
			time.Sleep(time.Minute)
		}
		assert.Equal(t, 13, calls, "one request of each call is answered, and there are 2 pages and 12 certificates")
		a.grow(13)
		ids, err := l.Latest(t.Context(), since, "key of c12")
		require.NoError(t, err)
		assert.Empty(t, ids, "as it was")
		time.Sleep(11 * time.Second)
		for range 30 {
			if ids, err = l.Latest(t.Context(), since, "key of c12"); err == nil {
				break
			}
		}
		require.NoError(t, err)
		assert.Len(t, ids, 1)
	})
}

// One certificate that cannot be read does not keep the others from being read, and
// nobody is told that there is nothing.
func TestOneThatCannotBeReadHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{size: 30}
		broken := true
		l := connector.NewListing(connector.ListingConfig{Page: a.page, Most: 500, Pages: 100, TooMany: errTooMuch, Now: time.Now, Read: func(ctx context.Context, id string) (connector.Listed, error) {
			if id == "c0" && broken {
				return connector.Listed{}, &connector.Error{Class: connector.ClassNotFound}
			}
			return a.read(ctx, id)
		}})
		since := time.Now()
		for range 3 {
			_, err := l.Find(t.Context(), since, "key of none", time.Minute)
			assert.Equal(t, connector.ClassNotFound, connector.Classify(err).Class)
		}
		_, reads := a.counted()
		assert.Equal(t, 29, reads)
		broken = false
		ids, err := l.Find(t.Context(), since, "key of none", time.Minute)
		require.NoError(t, err)
		assert.Empty(t, ids)
		_, reads = a.counted()
		assert.Equal(t, 1, reads)
	})
}

// An account that is not to be asked is not asked by those who wait.
func TestARefusalIsForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		a := &account{size: 40, fail: func() error {
			if asked++; asked > 10 {
				return &connector.Error{Class: connector.ClassBusy, RetryAfter: time.Second}
			}
			return nil
		}}
		l := a.listing()
		since := time.Now()
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				_, err := l.Find(t.Context(), since, "key of c1", time.Minute)
				e := connector.Classify(err)
				assert.Equal(t, connector.ClassBusy, e.Class)
				assert.Equal(t, time.Second, e.RetryAfter)
			})
		}
		all.Wait()
		assert.Equal(t, 11, asked)
		a.fail = nil
		ids, err := l.Find(t.Context(), since, "key of c1", time.Minute)
		require.NoError(t, err)
		assert.Len(t, ids, 1)
	})
}

// Nobody waits long for what another one reads, and says whether the authority answers.
func TestNobodyWaitsLongForAnother(t *testing.T) {
	for name, c := range map[string]struct {
		takes time.Duration
		class connector.Class
	}{"it answers": {time.Second, connector.ClassNotReady}, "it hangs": {time.Hour, connector.ClassRetry}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &account{size: 400, takes: c.takes}
				l := a.listing()
				since := time.Now()
				first, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				all.Go(func() { _, _ = l.Find(first, since, "", 0) })
				time.Sleep(time.Second / 2)
				ctx, tally := connector.WithTally(t.Context())
				began := time.Now()
				_, err := l.Find(ctx, since, "", time.Minute)
				assert.Equal(t, c.class, connector.Classify(err).Class)
				assert.Equal(t, c.class == connector.ClassNotReady, tally.Answered())
				assert.Equal(t, 10*time.Second, time.Since(began))
				cancel()
				all.Wait()
			})
		})
	}
}

// A window with too much is said to be one, for as long as that is new enough, and keeps
// no later one from being read.
func TestTooMuchToLookThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{size: 501}
		l := a.listing()
		since := time.Now()
		for range 3 {
			_, err := l.Find(t.Context(), since, "key of c1", time.Minute)
			require.ErrorIs(t, err, errTooMuch)
		}
		pages, reads := a.counted()
		assert.Equal(t, 51, pages)
		assert.Zero(t, reads)
		a.grow(20)
		ids, err := l.Find(t.Context(), since.Add(time.Hour), "key of c1", 0)
		require.NoError(t, err)
		assert.Len(t, ids, 1)
	})
}
