package daybook

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const pause = 3 * time.Minute

var silence = health.Silence(pause)

// A store is what a cluster has: a state and a journal. Nodes share it here.
type store struct {
	t       *testing.T
	mu      sync.Mutex
	state   *fleet.State
	journal interface {
		Journal
		Append(through uint64, facts []fleet.Fact) error
	}
	fail  error // of Propose
	told  bool  // the result of a Propose gets lost
	count int   // of proposals

	dropped uint64 // facts that the agent has lost, more each time it is heard of
}

var errAway = errors.New("there is no leader")

func newStore(t *testing.T) *store {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	return &store{t: t, state: state, journal: &memory{}}
}

// set changes what the store does, while nodes use it.
func (s *store) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *store) proposals() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func (s *store) State() *fleet.State { return s.state }

func (s *store) Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.count++
	if s.fail != nil {
		return nil, s.fail
	}
	results := s.apply(commands)
	if s.told {
		return nil, errAway
	}
	return results, nil
}

func (s *store) apply(commands []fleet.Command) []fleet.Result {
	entry, err := fleet.EncodeEntry(commands)
	require.NoError(s.t, err)
	results, facts, err := s.state.Apply(s.state.Index()+1, entry)
	require.NoError(s.t, err)
	require.NoError(s.t, s.journal.Append(s.state.Index(), facts))
	return results
}

// do applies a payload at a time.
func (s *store) do(at time.Time, payload fleet.Payload) fleet.Result {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	command, err := fleet.NewCommand(at, payload)
	require.NoError(s.t, err)
	return s.apply([]fleet.Command{command})[0]
}

// enrol makes an agent.
func (s *store) enrol(at time.Time) {
	s.t.Helper()
	require.NoError(s.t, s.do(at, fleet.CreateEnrollmentToken{Actor: "local", ID: "token", SecretHash: [32]byte{1}, ExpiresAt: at.AddDate(9, 0, 0)}).Err())
	require.NoError(s.t, s.do(at, fleet.EnrollAgent{
		TokenID: "token", SecretHash: [32]byte{1}, AgentID: "a1",
		Identity: fleet.Identity{Certificate: []byte("c"), Fingerprint: "f", PublicKeyFingerprint: "p", Serial: "1", NotAfter: at.AddDate(9, 0, 0)},
	}).Err())
}

// tell brings events of the agent in.
func (s *store) tell(at time.Time, events ...wire.Event) {
	s.t.Helper()
	agent, ok := s.state.View().Agent("a1")
	require.True(s.t, ok)
	for i := range events {
		events[i].Sequence = agent.Sync.Event + 1 + uint64(i)
		if events[i].At.IsZero() {
			events[i].At = at
		}
	}
	host := agent.Host
	host.EventsDropped += s.dropped
	require.NoError(s.t, s.do(at, fleet.SyncAgent{AgentID: "a1", BootID: "b", Sequence: agent.Sync.Sequence + 1, Host: &host, Events: events}).Err())
}

var renewed = wire.Event{Kind: wire.EventRenewed, Certificate: "web", Issuer: "corp"}

// keeper is that of a node that shares the store, with the clock of the bubble.
func (s *store) keeper() *Keeper {
	s.t.Helper()
	return s.keeperAt(time.Now)
}

func (s *store) keeperAt(now func() time.Time) *Keeper {
	s.t.Helper()
	k, err := New(Config{
		Node: s, Journal: s.journal, Pause: func() time.Duration { return pause }, Now: now, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(s.t, err)
	return k
}

// lead runs a keeper until the function that it returns is called.
func (s *store) lead(k *Keeper) (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.keep(ctx) }()
	return func() {
		cancel()
		require.NoError(s.t, <-ended)
	}
}

func (s *store) day(date string) *fleet.Day {
	s.t.Helper()
	day, ok := s.state.View().Day(date)
	require.True(s.t, ok, "the day %s", date)
	return day
}

// dayFacts are the dates that the journal has facts of, as often as it has them.
func (s *store) dayFacts() (dates []string) {
	s.t.Helper()
	for q := (history.Query{Kinds: []fleet.Kind{fleet.KindDayRecorded}}); ; {
		facts, next, err := s.journal.Facts(context.Background(), q)
		require.NoError(s.t, err)
		for _, f := range facts {
			var day fleet.Day
			require.NoError(s.t, json.Unmarshal(f.Detail, &day))
			require.Equal(s.t, f.Object, day.Date)
			dates = append(dates, day.Date)
		}
		if next == "" {
			return dates
		}
		q.After = next
	}
}

// memory is a journal without a file, for years.
type memory struct {
	mu      sync.Mutex
	facts   []fleet.Fact
	through uint64
	floor   uint64
	gaps    history.Gaps
}

func (m *memory) Append(through uint64, facts []fleet.Fact) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.facts = append(m.facts, facts...)
	m.through = through
	return nil
}

// drop is what retention does to facts up to an index.
func (m *memory) drop(through uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.facts = slices.DeleteFunc(m.facts, func(f fleet.Fact) bool { return f.Index <= through && f.Audit == 0 })
	m.floor = through
}

func (m *memory) Status() (history.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return history.Status{Through: m.through, Floor: m.floor, Gaps: m.gaps}, nil
}

func (m *memory) Facts(_ context.Context, q history.Query) (facts []fleet.Fact, next string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	index, ordinal, err := history.Position(q.After)
	if err != nil {
		return nil, "", err
	}
	from := 0
	if q.After != "" {
		from, _ = slices.BinarySearchFunc(m.facts, fleet.Fact{Index: index, Ordinal: ordinal}, func(a, b fleet.Fact) int {
			return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Ordinal, b.Ordinal))
		})
	}
	for i := from; i < len(m.facts); i++ {
		f := m.facts[i]
		if f.Index == index && f.Ordinal == ordinal {
			continue
		}
		if len(q.Kinds) > 0 && !slices.Contains(q.Kinds, f.Kind) {
			continue
		}
		if len(facts) == q.Limited() {
			return facts, history.Cursor(facts[len(facts)-1]), nil
		}
		facts = append(facts, f)
	}
	return facts, "", nil
}
