package cluster_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/durable"
)

// countedJournal counts what is written to a journal.
type countedJournal struct {
	cluster.Journal
	writes *atomic.Int64
}

func (j countedJournal) Append(through uint64, facts []fleet.Fact) error {
	j.writes.Add(1)
	return j.Journal.Append(through, facts)
}

// Commands that come at the same time share entries, and with them the syncs of
// each node's log and journal: these cost more than anything else. Sixty-four
// callers put some twenty into each entry; this goes by what is counted, and not
// by the time that it takes.
func TestManyCommandsShareAnEntry(t *testing.T) {
	const callers, each, nodes, least = 64, 20, 3, 10
	var stores, journals atomic.Int64
	m := newMesh(t, nodes, func(c *cluster.Config) {
		c.Journal = countedJournal{c.Journal, &journals}
		c.Hook = func(step durable.Step, _ string, done bool) error {
			if done && step == "cluster: store log entries" {
				stores.Add(1)
			}
			return nil
		}
	})
	leader := m.leader()
	m.do(leader, newToken("first"))
	before, storesBefore, journalsBefore := leader.AppliedIndex(), stores.Load(), journals.Load()
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := range each {
				command, err := fleet.NewCommand(time.Now(), newToken(fmt.Sprintf("token%d.%d", caller, i)))
				if assert.NoError(t, err) {
					_, err = leader.Propose(t.Context(), command)
					assert.NoError(t, err)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, callers*each+1, leader.State().View().Rows(fleet.TableEnrollmentTokens))
	commands, entries := callers*each, leader.AppliedIndex()-before
	stored, written := stores.Load()-storesBefore, journals.Load()-journalsBefore
	counts.Report(t, "group-commit-entries", int(entries), fmt.Sprintf("entries of the log for %d commands from %d callers", commands, callers))
	t.Logf("%d writes of logs and %d of journals on %d nodes", stored, written, nodes)
	assert.LessOrEqual(t, entries, uint64(commands/least))
	assert.LessOrEqual(t, stored, int64(nodes*commands/least))
	assert.LessOrEqual(t, written, int64(nodes*commands/least))
}
