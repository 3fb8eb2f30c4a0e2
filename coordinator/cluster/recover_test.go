package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/pki"
)

const recoverPatience = 60 * time.Second

// survivor is a node whose directory outlives it.
type survivor struct {
	t         *testing.T
	config    Config
	transport *raft.InmemTransport
	journal   *history.Journal
	node      *Node
	cancel    context.CancelFunc
	ended     chan error
	wrap      func(Journal) Journal // changes the journal that the node gets; nil does not
}

// newSurvivors bootstraps a cluster of so many nodes that can reach each other,
// and starts none.
func newSurvivors(t *testing.T, n int) []*survivor {
	t.Helper()
	patience := time.Second // so long that nobody loses the lead because the machine is busy
	if n == 1 {
		patience = 20 * time.Millisecond
	}
	var list []*survivor
	var voters []raft.Server
	for i := range n {
		id := fmt.Sprintf("node%d", i)
		s := &survivor{t: t, config: Config{Dir: t.TempDir(), NodeID: id, Log: slog.New(slog.DiscardHandler), ElectionTimeout: patience}}
		s.connect()
		voters = append(voters, raft.Server{ID: raft.ServerID(id), Address: s.transport.LocalAddr()})
		list = append(list, s)
	}
	for _, s := range list {
		journal, err := history.Create(s.journalConfig())
		require.NoError(t, err)
		require.NoError(t, journal.Close())
		s.openJournal()
		require.NoError(t, Bootstrap(s.config, voters))
		s.closeJournal()
	}
	return list
}

func (s *survivor) journalConfig() history.Config {
	return history.Config{Path: filepath.Join(s.config.Dir, "journal.db"), Log: s.config.Log}
}

func (s *survivor) connect() {
	_, s.transport = raft.NewInmemTransportWithTimeout(raft.ServerAddress("at-"+s.config.NodeID), 200*time.Millisecond)
	s.config.Transport = s.transport
}

func (s *survivor) openJournal() {
	var err error
	s.journal, err = history.Open(s.journalConfig())
	require.NoError(s.t, err)
	s.config.Journal = s.journal
	if s.wrap != nil {
		s.config.Journal = s.wrap(s.journal)
	}
}

func (s *survivor) closeJournal() { require.NoError(s.t, s.journal.Close()) }

func connectAll(list ...*survivor) {
	for _, a := range list {
		for _, b := range list {
			if a != b {
				a.transport.Connect(b.transport.LocalAddr(), b.transport)
			}
		}
	}
}

func (s *survivor) start() {
	s.t.Helper()
	s.openJournal()
	var err error
	s.node, err = Open(s.config)
	require.NoError(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.ended = cancel, make(chan error, 1)
	node := s.node
	go func() { s.ended <- node.Run(ctx) }()
	s.t.Cleanup(s.stop)
}

// stop ends the node as a loss of the others would: it hands over to nobody.
func (s *survivor) stop() {
	if s.cancel == nil {
		return
	}
	s.transport.DisconnectAll()
	s.cancel()
	s.cancel = nil
	require.NoError(s.t, <-s.ended)
	s.closeJournal()
	s.connect()
}

func leaderOf(t *testing.T, list ...*survivor) *survivor {
	t.Helper()
	var found *survivor
	require.Eventually(t, func() bool {
		for _, s := range list {
			if s.cancel != nil && s.node.IsLeader() {
				found = s
				return true
			}
		}
		return false
	}, recoverPatience, 2*time.Millisecond, "no leader is elected")
	return found
}

// tokens proposes until somebody has stored it.
func tokens(t *testing.T, list []*survivor, ids ...string) {
	t.Helper()
	for _, id := range ids {
		command, err := fleet.NewCommand(time.Now(), fleet.CreateEnrollmentToken{ID: id})
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			results, err := leaderOf(t, list...).node.Propose(t.Context(), command)
			return err == nil && results[0].OK()
		}, recoverPatience, time.Millisecond)
	}
}

func (s *survivor) inspect() *Report {
	s.t.Helper()
	s.openJournal()
	defer s.closeJournal()
	report, state, err := Inspect(s.config, 100)
	require.NoError(s.t, err)
	require.NotNil(s.t, state)
	return report
}

func (s *survivor) recover(r Recovery, hook durable.Hook) error {
	s.openJournal()
	defer s.closeJournal()
	return recoverWith(context.Background(), s.config, r, hook)
}

func (s *survivor) has(ids ...string) {
	s.t.Helper()
	for _, id := range ids {
		_, ok := s.node.State().View().EnrollmentToken(id)
		assert.True(s.t, ok, "%s does not know %s", s.config.NodeID, id)
	}
}

func createdFacts(t *testing.T, journal *history.Journal) map[string]int {
	t.Helper()
	created := map[string]int{}
	facts, _, err := journal.Read(history.Query{Limit: 500})
	require.NoError(t, err)
	for _, fact := range facts {
		if fact.Kind == fleet.KindEnrollmentTokenCreated {
			created[fact.Object]++
		}
	}
	return created
}

// TestTheLastOfThreeGoesOnAlone: two of three are lost for good. The third has
// an entry that nobody confirmed; it is kept, with its fact, and the cluster
// grows again.
func TestTheLastOfThreeGoesOnAlone(t *testing.T) {
	list := newSurvivors(t, 3)
	connectAll(list...)
	for _, s := range list {
		s.start()
	}
	tokens(t, list, "one", "two", "three")
	last := leaderOf(t, list...)
	index := last.node.AppliedIndex()

	for _, s := range list {
		if s != last {
			s.stop()
		}
	}
	// It is written here and confirmed by nobody.
	ctx, giveUp := context.WithCancel(t.Context())
	command, err := fleet.NewCommand(time.Now(), fleet.CreateEnrollmentToken{ID: "unconfirmed"})
	require.NoError(t, err)
	refused := make(chan error, 1)
	written := last.node.Status().LastIndex
	go func() {
		_, err := last.node.Propose(ctx, command)
		refused <- err
	}()
	var isWritten bool
	for deadline := time.Now().Add(recoverPatience); time.Now().Before(deadline) && last.node.raft.State() == raft.Leader; {
		if isWritten = last.node.Status().LastIndex > written; isWritten {
			break
		}
	}
	giveUp()
	require.Error(t, <-refused)
	last.stop()

	before := last.inspect()
	assert.Equal(t, "node", before.NodeID[:4])
	assert.GreaterOrEqual(t, before.LastIndex, index)
	assert.GreaterOrEqual(t, before.Committed, index)
	require.Len(t, before.Configuration, 3)

	plan := PlanRecovery(before, "at-"+last.config.NodeID, time.Now())
	require.NoError(t, last.recover(plan, nil))
	assert.DirExists(t, filepath.Join(last.config.Dir, plan.Kept), "the old state is kept")
	after := last.inspect()
	assert.Equal(t, before.LastIndex, after.LastIndex)
	assert.Equal(t, before.LastTerm, after.LastTerm)
	assert.Equal(t, before.CurrentTerm, after.CurrentTerm)
	assert.Equal(t, before.VotedFor, after.VotedFor)
	assert.Equal(t, plan.Servers, after.Configuration)
	assert.Equal(t, before.LastIndex, after.JournalThrough)

	last.start()
	leaderOf(t, last)
	last.has("one", "two", "three")
	want := map[string]int{"one": 1, "two": 1, "three": 1}
	if isWritten {
		last.has("unconfirmed")
		want["unconfirmed"] = 1
	}
	tokens(t, []*survivor{last}, "four")
	want["four"] = 1
	require.NoError(t, last.node.writer.wait(t.Context(), last.node.AppliedIndex()))
	assert.Equal(t, want, createdFacts(t, last.journal), "each fact once")

	// The others come back empty, under new names.
	fresh := &survivor{t: t, config: Config{Dir: t.TempDir(), NodeID: "new", Log: last.config.Log, ElectionTimeout: time.Second}}
	fresh.connect()
	survivor := &answers{of: last}
	fresh.config.Peers, fresh.config.BackfillPace = survivor, 50*time.Millisecond
	journal, err := history.Create(fresh.journalConfig())
	require.NoError(t, err)
	require.NoError(t, journal.Close())
	fresh.openJournal()
	require.NoError(t, Bootstrap(fresh.config, []raft.Server{{ID: raft.ServerID(last.config.NodeID), Address: last.transport.LocalAddr()}}))
	fresh.closeJournal()
	connectAll(last, fresh)
	fresh.start()
	require.NoError(t, last.node.raft.AddVoter("new", fresh.transport.LocalAddr(), 0, recoverPatience).Error())
	require.NoError(t, fresh.node.WaitIndex(t.Context(), last.node.AppliedIndex()))
	fresh.has("one", "two", "three", "four")
	require.Eventually(t, func() bool {
		return maps.Equal(want, createdFacts(t, fresh.journal))
	}, recoverPatience, 5*time.Millisecond, "the history of before comes from the survivor")
	assert.Positive(t, survivor.chunks.Load(), "it got a snapshot, which has none")
	// A stop hands over, which needs both.
	last.stop()
}

// answers calls one survivor, whoever is meant.
type answers struct {
	of     *survivor
	chunks atomic.Int32 // of facts that it was asked for
}

func (a *answers) Call(ctx context.Context, _, _, method string, request []byte) ([]byte, error) {
	if method == methodChunk {
		a.chunks.Add(1)
	}
	return a.of.node.HandleCall(ctx, "new", method, request)
}

// alone is a stopped node of one with so many tokens.
func alone(t *testing.T, ids ...string) *survivor {
	t.Helper()
	s := newSurvivors(t, 1)[0]
	s.start()
	tokens(t, []*survivor{s}, ids...)
	s.stop()
	return s
}

// The lost nodes may have claimed and placed an order, of which the survivor knows
// nothing: it looks for it first.
func TestARecoveryDoubtsTheOrders(t *testing.T) {
	s := newSurvivors(t, 1)[0]
	s.start()
	do := func(payload fleet.Payload) {
		t.Helper()
		command, err := fleet.NewCommand(time.Now(), payload)
		require.NoError(t, err)
		results, err := leaderOf(t, s).node.Propose(t.Context(), command)
		require.NoError(t, err)
		require.NoError(t, results[0].Err())
	}
	do(fleet.CreateEnrollmentToken{ID: "token", NamePatterns: []string{"**.example.com"}, ExpiresAt: time.Now().Add(time.Hour)})
	do(fleet.EnrollAgent{TokenID: "token", AgentID: "agent", Identity: fleet.Identity{Fingerprint: "f", PublicKeyFingerprint: "k"}})
	var orders []fleet.OrderPlacement
	for _, id := range []string{"order-0001", "order-0002"} {
		orders = append(orders, fleet.OrderPlacement{ID: id, Certificate: "web", Issuer: "slow", CSR: []byte(id), Names: pki.MustParseNames("www.example.com")})
	}
	do(fleet.SyncAgent{AgentID: "agent", BootID: "boot", Sequence: 1, Orders: orders})
	first, _ := s.node.State().View().Order("agent", "order-0001")
	do(fleet.ClaimOrder{Agent: "agent", ID: first.ID, Revision: first.ModifyIndex, Node: "node0", Term: 1})
	s.stop()

	plan := PlanRecovery(s.inspect(), "at-node0", time.Now())
	require.NoError(t, s.recover(plan, nil))
	s.start()
	leaderOf(t, s)
	view := s.node.State().View()
	for _, order := range orders {
		stored, ok := view.Order("agent", order.ID)
		require.True(t, ok)
		assert.Equal(t, fleet.OrderUnknown, stored.State, "%s may have been placed", order.ID)
	}
	assert.True(t, plan.Time.Equal(view.RestoredAt()), "and so may those that the agent sends again")
}

// Wherever a recovery is cut off, it is continued, and a start in between is
// refused once anything has been changed.
func TestARecoveryThatIsCutOffIsContinued(t *testing.T) {
	crash := errors.New("crash")
	count := 0
	dry := alone(t, "one")
	require.NoError(t, dry.recover(PlanRecovery(dry.inspect(), "new-address", time.Now()), func(durable.Step, string, bool) error { count++; return nil }))
	require.Equal(t, 10, count, "five steps, before and after")
	for at := range count {
		s := alone(t, "one", "two")
		before := s.inspect()
		plan := PlanRecovery(before, "new-address", time.Now())
		n := 0
		err := s.recover(plan, func(durable.Step, string, bool) error {
			if n++; n == at+1 {
				return crash
			}
			return nil
		})
		require.ErrorIs(t, err, crash)
		pending, ok, err := PendingRecovery(s.config.Dir)
		require.NoError(t, err)
		if ok {
			assert.Equal(t, plan, pending)
			s.openJournal()
			_, err := Open(s.config)
			s.closeJournal()
			require.ErrorIs(t, err, ErrRecovering, "step %d", at)
			require.NoError(t, s.recover(pending, nil), "step %d", at)
		} else if at == 0 {
			require.NoError(t, s.recover(plan, nil))
		}
		s.connect()
		after := s.inspect()
		assert.Equal(t, before.LastIndex, after.LastIndex)
		assert.Equal(t, []ServerReport{{ID: "node0", Address: "new-address", Voter: true}}, after.Configuration)
		assert.DirExists(t, filepath.Join(s.config.Dir, plan.Kept))
		assert.NoDirExists(t, filepath.Join(s.config.Dir, recoveredDir))
		s.start()
		leaderOf(t, s)
		s.has("one", "two")
		s.stop()
	}
}

func TestARecoveryIsRefused(t *testing.T) {
	s := alone(t, "one")
	report := s.inspect()
	plan := PlanRecovery(report, "a", time.Now())
	refused := func(want error, r Recovery) {
		t.Helper()
		require.ErrorIs(t, s.recover(r, nil), want)
		_, pending, err := PendingRecovery(s.config.Dir)
		require.NoError(t, err)
		assert.False(t, pending)
	}

	s.start()
	s.openJournalIn(t, func(c Config) {
		_, _, err := Inspect(c, 10)
		require.ErrorIs(t, err, ErrInUse, "a running node is not looked at")
		require.ErrorIs(t, Recover(t.Context(), c, plan), ErrInUse)
	})
	s.stop()

	other := plan
	other.NodeID = "another"
	require.ErrorContains(t, s.recover(other, nil), `this is the node "node0"`)
	late := plan
	late.LastIndex++
	require.ErrorContains(t, s.recover(late, nil), "plan it again")
	require.NoError(t, os.Remove(filepath.Join(s.config.Dir, recoveryFile)))

	require.NoError(t, os.RemoveAll(filepath.Join(s.config.Dir, "raft")))
	refused(ErrNoState, plan)
	require.NoError(t, os.Mkdir(filepath.Join(s.config.Dir, "raft"), 0o700))
	refused(ErrLogMissing, plan)
}

// openJournalIn gives fn a configuration with a journal of its own.
func (s *survivor) openJournalIn(t *testing.T, fn func(c Config)) {
	t.Helper()
	c := s.config
	c.Journal = &memoryJournal{t: t}
	fn(c)
}

// A snapshot that is damaged is told, an older one serves if the log reaches
// back to it, and a node is not started on the older one in silence.
func TestADamagedSnapshotIsToldAndPassedOver(t *testing.T) {
	s := newSurvivors(t, 1)[0]
	s.config.TrailingEntries = 10_000
	s.start()
	tokens(t, []*survivor{s}, "one")
	require.NoError(t, s.node.raft.Snapshot().Error())
	tokens(t, []*survivor{s}, "two")
	require.NoError(t, s.node.raft.Snapshot().Error())
	tokens(t, []*survivor{s}, "three")
	s.stop() // with a snapshot more

	snapshots := s.inspect().Snapshots
	require.Len(t, snapshots, 2)
	require.Empty(t, snapshots[0].Problem)
	newest := filepath.Join(s.config.Dir, "raft", "snapshots", snapshots[0].ID, "state.bin")
	whole, err := os.ReadFile(newest)
	require.NoError(t, err)
	for name, content := range map[string][]byte{"cut short": whole[:len(whole)/2], "damaged": append([]byte("x"), whole[1:]...), "empty": {}} {
		require.NoError(t, os.WriteFile(newest, content, 0o600))
		report := s.inspect()
		assert.NotEmpty(t, report.Snapshots[0].Problem, name)
		assert.Empty(t, report.Snapshots[1].Problem, name)
	}
	plan := PlanRecovery(s.inspect(), "at-node0", time.Now())
	require.NoError(t, s.recover(plan, nil))
	s.start()
	leaderOf(t, s)
	s.has("one", "two", "three")
	s.stop()

	// Nothing is left to recover from.
	for _, snapshot := range s.inspect().Snapshots {
		require.NoError(t, os.WriteFile(filepath.Join(s.config.Dir, "raft", "snapshots", snapshot.ID, "state.bin"), nil, 0o600))
	}
	s.openJournal()
	report, state, err := Inspect(s.config, 10)
	s.closeJournal()
	require.Error(t, err)
	require.NotNil(t, report, "what is there is told all the same")
	assert.Nil(t, state)
	require.Error(t, s.recover(PlanRecovery(report, "a", time.Now().Add(time.Minute)), nil))
	assert.DirExists(t, filepath.Join(s.config.Dir, "raft"), "a recovery that fails leaves the state where it is")
}

func TestADamagedLogIsToldByInspection(t *testing.T) {
	s := alone(t, "one")
	path := filepath.Join(s.config.Dir, "raft", "log.db")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, info.Size()/2))
	s.openJournal()
	defer s.closeJournal()
	_, _, err = Inspect(s.config, 10)
	require.ErrorIs(t, err, ErrLogDamaged)
	require.ErrorIs(t, Recover(t.Context(), s.config, Recovery{Version: 1, NodeID: "node0", Servers: []ServerReport{{ID: "node0"}}, Kept: "k"}), ErrLogDamaged)
	_, err = os.Stat(filepath.Join(s.config.Dir, recoveryFile))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// What a snapshot has is not needed of the log: an entry that is damaged there keeps
// nobody from a recovery, nor a node from its start.
func TestDamageThatASnapshotCoversDoesNotMatter(t *testing.T) {
	const covered, needed = "a-token-of-before-the-snapshot", "a-token-of-after-the-snapshot"
	s := newSurvivors(t, 1)[0]
	s.config.TrailingEntries = 10_000
	s.start()
	tokens(t, []*survivor{s}, covered)
	require.NoError(t, s.node.raft.Snapshot().Error())
	tokens(t, []*survivor{s}, needed)
	s.stop() // with a snapshot more
	path := filepath.Join(s.config.Dir, "raft", "log.db")
	damage := func(text string) {
		log, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Contains(t, string(log), text)
		changed := bytes.ReplaceAll(log, []byte(text), bytes.ToUpper([]byte(text)))
		require.NoError(t, os.WriteFile(path, changed, 0o600))
	}
	damage(covered)
	damage("at-node0") // in the first entry
	s.start()
	leaderOf(t, s)
	s.has(covered, needed)
	s.stop()
	report := s.inspect()
	assert.Equal(t, 2, report.DamagedEntries)
	require.NoError(t, s.recover(PlanRecovery(report, "at-node0", time.Now()), nil))
	s.start()
	leaderOf(t, s)
	s.has(covered, needed)
}
