package clusterfaults

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/internal/clusterfaults/linear"
	"github.com/certctl/certctl/internal/counts"
)

// checkLimit bounds the search for an order of all operations.
const checkLimit = 3 * time.Minute

// findings is what is wrong in the end; all of it should be 0.
type findings struct {
	lost, twice       int // acknowledged facts that are missing; facts too often
	tables, journals  int // nodes that differ
	leaders           int // terms with more than one leader
	notLinearizable   int
	operations, facts int // that were checked
	terms             int
	gone              int // facts that were acknowledged and lost as it was said
}

func (f *findings) add(more findings) {
	f.lost += more.lost
	f.twice += more.twice
	f.tables += more.tables
	f.journals += more.journals
	f.leaders += more.leaders
	f.notLinearizable += more.notLinearizable
	f.operations += more.operations
	f.facts = more.facts // of all rounds
	f.terms += more.terms
	f.gone += more.gone
}

// verify holds what is stored on each node of a whole cluster against what the
// clients of a load, which has ended, were told, and returns all that was found.
func (b *bench) verify(l *load) findings {
	b.t.Helper()
	b.caughtUp()
	index, pictures := b.pictures()
	if !assert.Len(b.t, pictures, 1, "the tables of all nodes are equal, at log entry %d", index) {
		b.t.Log(slices.Collect(maps.Values(pictures)))
	}
	facts, differing := b.allFacts()
	b.found.tables += len(pictures) - 1
	b.found.journals += differing
	b.compareReplaced(facts)
	b.compare(b.ledger, facts)
	b.found.facts = b.ledger.len()
	b.compareAgents()
	b.check(l)
	b.countLeaders()
	found := b.found
	b.found = findings{}
	return found
}

// compare holds facts against a ledger. Those that were undone do not count.
func (b *bench) compare(ledger *ledger, facts []fleet.Fact) {
	b.t.Helper()
	missing, excess := ledger.compare(slices.DeleteFunc(distinct(facts), func(fact fleet.Fact) bool {
		return slices.ContainsFunc(b.replaced, func(r replaced) bool { return r.loss.After < fact.Index && r.follows(fact) })
	}))
	b.found.lost += len(missing)
	b.found.twice += len(excess)
	assert.Empty(b.t, missing, "acknowledged facts that no journal has")
	assert.Empty(b.t, excess, "facts that the journals have too often")
}

// compareAgents finds each agent that was told that it is enrolled in the tables.
func (b *bench) compareAgents() {
	b.t.Helper()
	view := b.members[0].node.Load().State().View()
	for _, agent := range b.ledger.objects(fleet.KindAgentEnrolled) {
		if _, ok := view.Agent(agent); !assert.True(b.t, ok, "agent %s is not in the tables", agent) {
			b.found.lost++
		}
	}
}

// check looks for an order of all operations of a load, which has ended.
func (b *bench) check(l *load) {
	b.t.Helper()
	l.readAll()
	b.explain(l.history)
}

func (b *bench) explain(history *linear.History) {
	b.t.Helper()
	operations, unknown := history.Len()
	b.found.operations += operations
	began := time.Now()
	if err := history.Check(checkLimit); !assert.NoError(b.t, err) {
		b.found.notLinearizable++
	}
	if took := time.Since(began); took > 5*time.Second {
		b.t.Logf("an order of %d operations, %d of them with an unknown outcome, was found in %v", operations, unknown, took.Round(time.Millisecond))
	}
}

func (b *bench) countLeaders() {
	b.t.Helper()
	terms, twice := b.leads.counted()
	b.found.terms += terms
	b.found.leaders += twice
	assert.Zero(b.t, twice, "terms with two leaders")
}

// lose has the verifiers look at what was there before the end of the log was
// lost, by the facts that were on all disks, and forget it. No node runs, and no
// answer is under way.
func (b *bench) lose(l *load, loss linear.Loss, facts []fleet.Fact) {
	b.t.Helper()
	b.compareReplaced(facts)
	before, gone := b.ledger.lose(loss)
	b.compare(before, facts)
	b.explain(l.history.Lose(loss))
	b.kept = slices.DeleteFunc(b.kept, func(fact fleet.Fact) bool { return fact.Index > loss.After })
	b.losses.Add(1)
	b.found.gone += gone
	// What comes of it is another cluster, which has its own terms.
	b.countLeaders()
	b.leads = newLeads()
}

// replaced is a part of the log that was undone and whose facts stay.
type replaced struct {
	loss    linear.Loss
	restore fleet.Fact // of what has undone it
	// before is what is to be found up to there; nil once it was compared.
	before *ledger
}

// follows reports whether the restore came after a fact: other changes may stand
// before it in the same entry.
func (r replaced) follows(fact fleet.Fact) bool {
	return cmp.Or(cmp.Compare(fact.Index, r.restore.Index), cmp.Compare(fact.Ordinal, r.restore.Ordinal)) < 0
}

// setBack has the verifiers look at what was there before a restore has undone
// it, back to an index, and forget it. Its facts are looked at when all of them are
// written.
func (b *bench) setBack(l *load, index uint64, restore fleet.Fact) {
	b.t.Helper()
	loss := linear.Loss{After: index, Before: restore.Index}
	before, gone := b.ledger.lose(loss)
	b.replaced = append(b.replaced, replaced{loss: loss, restore: restore, before: before})
	b.explain(l.history.Lose(loss))
	b.losses.Add(1)
	b.found.gone += gone
}

// compareReplaced looks at the facts of before each restore.
func (b *bench) compareReplaced(facts []fleet.Fact) {
	b.t.Helper()
	all := b.replaced
	for i, r := range all {
		if r.before == nil {
			continue
		}
		b.replaced = all[:i] // those before it had been undone by then
		b.compare(r.before, slices.DeleteFunc(slices.Clone(facts), func(fact fleet.Fact) bool { return !r.follows(fact) }))
		all[i].before = nil
	}
	b.replaced = all
}

type place struct {
	index   uint64
	ordinal uint32
}

// distinct has each fact once, in order.
func distinct(facts []fleet.Fact) (all []fleet.Fact) {
	known := map[place]bool{}
	for _, fact := range facts {
		at := place{fact.Index, fact.Ordinal}
		if !known[at] {
			known[at] = true
			all = append(all, fact)
		}
	}
	slices.SortFunc(all, func(a, b fleet.Fact) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Ordinal, b.Ordinal))
	})
	return all
}

// pictures are the tables of all nodes at one index, each with those that have it.
// Clients change nothing any more, but a leader may.
func (b *bench) pictures() (index uint64, pictures map[string][]string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.eventually(ctx, "all nodes are at the same log entry", func() bool {
		pictures = map[string][]string{}
		for i, m := range b.members {
			snapshot := m.node.Load().State().Snapshot()
			if i == 0 {
				index = snapshot.Index()
			}
			if snapshot.Index() != index {
				return false
			}
			var picture bytes.Buffer
			require.NoError(b.t, snapshot.Persist(&picture))
			pictures[picture.String()] = append(pictures[picture.String()], m.id)
		}
		return true
	})
	return index, pictures
}

// allFacts puts the journals of all nodes together, when they have everything:
// what one has not because it got a snapshot, another one has, or a
// disk that was given up. It counts the journals that differ from the whole
// elsewhere.
func (b *bench) allFacts() (whole []fleet.Fact, differing int) {
	b.t.Helper()
	b.filled()
	whole = slices.Clone(b.kept)
	journals := make([][]fleet.Fact, len(b.members))
	var gaps []history.Gaps
	for i, m := range b.members {
		journals[i] = b.factsOf(m)
		status, err := m.journal.Status()
		require.NoError(b.t, err)
		gaps = append(gaps, status.Gaps)
		whole = append(whole, journals[i]...)
	}
	whole = distinct(whole)
	for i, m := range b.members {
		want := slices.DeleteFunc(slices.Clone(whole), func(fact fleet.Fact) bool {
			return fact.Index <= b.at(0) || slices.ContainsFunc(gaps[i], func(g history.Gap) bool { return b.at(g.From) <= fact.Index && fact.Index <= b.at(g.To) })
		})
		if !assert.True(b.t, slices.EqualFunc(want, journals[i], equalFacts), "the journal of %s, with the gaps %v, differs from the others: %s", m.id, gaps[i], firstDifference(want, journals[i])) {
			differing++
		}
	}
	return whole, differing
}

// filled waits until no node lacks a part of the history that another one has: those
// that got snapshots take it from the others, and what only nodes had that are gone
// stays missing.
func (b *bench) filled() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.eventually(ctx, "the journals are filled", func() bool {
		var lost history.Gaps
		most := uint64(0)
		for i, m := range b.members {
			status, err := m.journal.Status()
			require.NoError(b.t, err)
			if i == 0 {
				lost = status.Gaps
			}
			lost, most = lost.And(status.Gaps), max(most, status.Gaps.Count())
		}
		return most == lost.Count()
	})
}

func equalFacts(a, b fleet.Fact) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

func firstDifference(want, got []fleet.Fact) string {
	for i := range min(len(want), len(got)) {
		if !equalFacts(want[i], got[i]) {
			return fmt.Sprintf("fact %d is %v, want %v", i, got[i], want[i])
		}
	}
	return fmt.Sprintf("%d facts, want %d", len(got), len(want))
}

// factsOf reads a journal, when the facts of all that is applied are in it.
func (b *bench) factsOf(m *member) (facts []fleet.Fact) {
	b.t.Helper()
	b.written(m)
	return b.read(m.journal)
}

// written waits until the facts of all that a member has applied are in its
// journal.
func (b *bench) written(m *member) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	index := m.node.Load().AppliedIndex()
	b.eventually(ctx, m.id+" has written its facts", func() bool {
		status, err := m.journal.Status()
		require.NoError(b.t, err)
		return status.Through >= index || m.node.Load().Status().Journal.Facts == 0
	})
}

// keepFacts reads the journals of nodes that are down, whose disks are given up.
func (b *bench) keepFacts(lost ...*member) {
	b.t.Helper()
	for _, m := range lost {
		b.kept = append(b.kept, b.factsOnDisk(m)...)
	}
}

// factsOnDisk reads the journal of a node that is down.
func (b *bench) factsOnDisk(m *member) []fleet.Fact {
	b.t.Helper()
	journal, err := history.Open(history.Config{Path: filepath.Join(b.form.dir(m), "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(b.t, err)
	facts := b.read(journal)
	require.NoError(b.t, journal.Close())
	return facts
}

// read reads a journal. The indexes are those of [bench.at].
func (b *bench) read(journal *history.Journal) (facts []fleet.Fact) {
	b.t.Helper()
	for query := (history.Query{Limit: history.MaxLimit}); ; {
		page, next, err := journal.Read(query)
		require.NoError(b.t, err)
		for _, fact := range page {
			fact.Index = b.at(fact.Index)
			facts = append(facts, fact)
		}
		if next == "" {
			return facts
		}
		query.After = next
	}
}

// report counts what was found, under names that begin alike.
func (f *findings) report(b *bench, name string, faults int, what string) {
	counts.Report(b.t, name, faults, what)
	counts.Report(b.t, name+"-lost-facts", f.lost, fmt.Sprintf("of %d acknowledged facts, those that no journal has", f.facts))
	counts.Report(b.t, name+"-said-to-be-lost", f.gone, "acknowledged facts that were lost with two nodes or undone by a restore, as it was said, and that are not there")
	counts.Report(b.t, name+"-facts-twice", f.twice, "facts that the journals have more often than they were asked for")
	counts.Report(b.t, name+"-nodes-differ", f.tables+f.journals, "nodes whose tables or journals differ from the others'")
	counts.Report(b.t, name+"-leaders-twice", f.leaders, fmt.Sprintf("of %d terms, those with more than one leader", f.terms))
	counts.Report(b.t, name+"-not-linearizable", f.notLinearizable, fmt.Sprintf("histories without an order that explains them, of %d operations", f.operations))
}
