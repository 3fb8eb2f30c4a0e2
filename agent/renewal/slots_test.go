package renewal

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/agent/issuer"
)

func TestOneIssuerMayUseAllSlots(t *testing.T) {
	s := newSlots(3, []string{"a"})
	for range 3 {
		require.True(t, s.take("a"))
	}
	assert.True(t, s.full())
	assert.False(t, s.take("a"))
	s.give("a")
	assert.Len(t, s.freed, 1)
	assert.True(t, s.take("a"))
}

// Whatever the others do, an issuer that holds less than its part gets a slot,
// and there are never more than all.
func TestEveryIssuerFindsItsPart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.IntRange(1, 30).Draw(t, "total")
		issuers := make([]string, rapid.IntRange(1, 6).Draw(t, "issuers"))
		for i := range issuers {
			issuers[i] = fmt.Sprint("ca", i)
		}
		s := newSlots(total, issuers)
		part := 0
		if len(issuers) <= total {
			part = max(total/(2*len(issuers)), 1)
		}
		used, sum := map[string]int{}, 0
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			name := rapid.SampledFrom(issuers).Draw(t, "issuer")
			if used[name] > 0 && rapid.Bool().Draw(t, "give") {
				s.give(name)
				used[name], sum = used[name]-1, sum-1
				continue
			}
			took := s.take(name)
			if !took && used[name] < part {
				t.Fatalf("%s holds %d of its %d slots and gets none: %v", name, used[name], part, used)
			}
			if took {
				used[name], sum = used[name]+1, sum+1
			}
			if sum > total {
				t.Fatalf("%d of %d slots are taken", sum, total)
			}
		}
	})
}

// An authority that hangs on more certificates than there are slots, all of them
// longer due, does not hold up those of another one.
func TestAuthorityThatHangsDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.clock.set(time.Now())
		hanging := newAuthority(t, w.clock.now)
		hanging.interfere(func(ctx context.Context, _ *issuer.Order) error { <-ctx.Done(); return ctx.Err() })
		w.names = nil
		for i := range 200 {
			w.names = append(w.names, fmt.Sprintf("hangs%03d", i))
		}
		for i := range 20 {
			w.names = append(w.names, fmt.Sprintf("works%02d", i))
		}
		w.tune = func(c *Config) {
			c.Concurrency = 4
			for i := range c.Managed[:200] {
				c.Managed[i].Issuers = []NamedIssuer{{Name: "hanging", Issuer: hanging}}
			}
		}
		w.open()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		began := time.Now()
		go func() { ended <- w.e.Run(ctx) }()
		for w.ca.issuedCount() < 20 && time.Since(began) < 10*time.Minute {
			<-time.After(time.Second)
			w.clock.set(time.Now())
		}
		assert.Equal(t, 20, w.ca.issuedCount())
		assert.Less(t, time.Since(began), time.Minute, "the others waited for the authority that hangs")

		// One that becomes due while nothing of the other moves is seen soon.
		for w.e.Renew(t.Context(), "works00") != nil {
			<-time.After(time.Second)
		}
		began = time.Now()
		for w.ca.issuedCount() < 21 && time.Since(began) < 10*time.Minute {
			<-time.After(time.Second)
			w.clock.set(time.Now())
		}
		assert.Less(t, time.Since(began), 3*DefaultTickInterval)
		cancel()
		require.NoError(t, <-ended)
		w.close()
	})
}

// The slots that are set aside are for the issuers that are in use now.
func TestSlotsFollowTheIssuers(t *testing.T) {
	s := newSlots(4, []string{"a"})
	for range 3 {
		require.True(t, s.take("a"))
	}
	s.serve([]string{"b"})
	assert.False(t, s.take("a"), "the last one is b's")
	assert.True(t, s.take("b"))
	s.give("a")
	assert.False(t, s.take("a"))
	assert.True(t, s.take("b"))
	for range 2 {
		s.give("a")
	}
	assert.True(t, s.take("a"), "what b does not need is for anybody")
	s.give("a")
	s.resize(1)
	assert.True(t, s.full())
	s.give("b")
	assert.False(t, s.take("b"), "one is taken, and there is but one")
	s.give("b")
	assert.True(t, s.take("b"))
}
