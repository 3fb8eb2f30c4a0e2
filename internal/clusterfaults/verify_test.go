package clusterfaults

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
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
}

func (f *findings) add(more findings) {
	f.lost += more.lost
	f.twice += more.twice
	f.tables += more.tables
	f.journals += more.journals
	f.leaders += more.leaders
	f.notLinearizable += more.notLinearizable
	f.operations += more.operations
	f.facts += more.facts
	f.terms += more.terms
}

// verify holds what is stored on each node of a whole cluster against what the
// clients of a load, which has ended, were told.
func (b *bench) verify(l *load) (f findings) {
	b.t.Helper()
	b.caughtUp()
	index := b.settle()
	pictures := map[string][]string{}
	for _, m := range b.members {
		state := m.node.Load().State()
		var picture bytes.Buffer
		snapshot := state.Snapshot()
		require.Equal(b.t, index, snapshot.Index(), m.id)
		require.NoError(b.t, snapshot.Persist(&picture))
		pictures[picture.String()] = append(pictures[picture.String()], m.id)
	}
	f.tables = len(pictures) - 1
	if !assert.Zero(b.t, f.tables, "the tables of all nodes are equal, at log entry %d", index) {
		b.t.Log(pictures2names(pictures))
	}

	facts, differing := b.allFacts()
	f.journals = differing
	missing, excess := b.ledger.compare(facts)
	f.lost, f.twice, f.facts = len(missing), len(excess), b.ledger.len()
	assert.Empty(b.t, missing, "acknowledged facts that no journal has")
	assert.Empty(b.t, excess, "facts that the journals have too often")

	l.readAll()
	f.operations, _ = l.history.Len()
	if err := l.history.Check(checkLimit); !assert.NoError(b.t, err) {
		f.notLinearizable = 1
	}
	f.terms, f.leaders = b.leads.counted()
	assert.Zero(b.t, f.leaders, "terms with two leaders")
	return f
}

func pictures2names(pictures map[string][]string) (groups [][]string) {
	for _, nodes := range pictures {
		groups = append(groups, nodes)
	}
	return groups
}

// settle returns an index that every node is at: nobody changes anything.
func (b *bench) settle() (index uint64) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.eventually(ctx, "all nodes are at the same log entry", func() bool {
		index = b.members[0].node.Load().AppliedIndex()
		for _, m := range b.members {
			if m.node.Load().AppliedIndex() != index {
				return false
			}
		}
		return true
	})
	return index
}

// allFacts puts the journals of all nodes together, when they have everything that
// is applied: what one has not because it got a snapshot, another one has. It
// counts the journals that differ from the whole elsewhere.
func (b *bench) allFacts() (whole []fleet.Fact, differing int) {
	b.t.Helper()
	type place struct {
		index   uint64
		ordinal uint32
	}
	known := map[place]fleet.Fact{}
	for _, fact := range b.kept {
		known[place{fact.Index, fact.Ordinal}] = fact
	}
	b.filled()
	journals := make([][]fleet.Fact, len(b.members))
	var gaps []history.Gaps
	for i, m := range b.members {
		journals[i] = b.factsOf(m)
		status, err := m.journal.Status()
		require.NoError(b.t, err)
		gaps = append(gaps, status.Gaps)
		for _, fact := range journals[i] {
			known[place{fact.Index, fact.Ordinal}] = fact
		}
	}
	for _, fact := range known {
		whole = append(whole, fact)
	}
	slices.SortFunc(whole, func(a, b fleet.Fact) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Ordinal, b.Ordinal))
	})
	for i, m := range b.members {
		want := slices.DeleteFunc(slices.Clone(whole), func(fact fleet.Fact) bool {
			return slices.ContainsFunc(gaps[i], func(g history.Gap) bool { return g.From <= fact.Index && fact.Index <= g.To })
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

// factsOf reads a journal, when everything that is applied there is in it.
func (b *bench) factsOf(m *member) (facts []fleet.Fact) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.eventually(ctx, m.id+" has written its facts", func() bool {
		return m.node.Load().Status().Journal == (cluster.JournalLag{})
	})
	return b.read(m.journal)
}

// keepFacts reads the journal of a node that is down, whose disk is given up.
func (b *bench) keepFacts(m *member) {
	b.t.Helper()
	journal, err := history.Open(history.Config{Path: filepath.Join(b.form.dir(m), "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(b.t, err)
	b.kept = append(b.kept, b.read(journal)...)
	require.NoError(b.t, journal.Close())
}

func (b *bench) read(journal *history.Journal) (facts []fleet.Fact) {
	b.t.Helper()
	for query := (history.Query{Limit: history.MaxLimit}); ; {
		page, next, err := journal.Read(query)
		require.NoError(b.t, err)
		facts = append(facts, page...)
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
	counts.Report(b.t, name+"-facts-twice", f.twice, "facts that the journals have more often than they were asked for")
	counts.Report(b.t, name+"-nodes-differ", f.tables+f.journals, "nodes whose tables or journals differ from the others'")
	counts.Report(b.t, name+"-leaders-twice", f.leaders, fmt.Sprintf("of %d terms, those with more than one leader", f.terms))
	counts.Report(b.t, name+"-not-linearizable", f.notLinearizable, fmt.Sprintf("histories without an order that explains them, of %d operations", f.operations))
}
