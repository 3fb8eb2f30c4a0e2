package cluster_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

// childEnv makes the test binary a coordinator under load: "DIR RUN".
const childEnv = "CERTCTL_CLUSTER_TEST_CHILD"

func enrolment(id string) fleet.EnrollAgent {
	return fleet.EnrollAgent{
		TokenID: "load", SecretHash: [32]byte{1, 2, 3}, AgentID: id,
		Identity: fleet.Identity{
			Certificate: []byte("certificate of " + id), Fingerprint: "f-" + id, PublicKeyFingerprint: "k-" + id,
			Serial: "01", NotAfter: time.Now().Add(time.Hour),
		},
	}
}

// childMain enrols agents from several goroutines and prints the id of each
// when its enrolment is acknowledged, until somebody kills it.
func childMain() int {
	dir, run, _ := strings.Cut(os.Getenv(childEnv), " ")
	if err := childRun(dir, run); err != nil {
		fmt.Println("error", err)
		return 1
	}
	return 0
}

func childRun(dir, run string) error {
	log := slog.New(slog.DiscardHandler)
	journal, err := history.Open(history.Config{Path: filepath.Join(dir, "journal.db"), Log: log})
	if err != nil {
		return err
	}
	node, err := cluster.Open(cluster.Config{
		Dir: dir, NodeID: "test", Journal: journal, Log: log, ElectionTimeout: 20 * time.Millisecond,
		// Snapshots all the time, so that many a kill falls into one.
		SnapshotEntries: 20, SnapshotInterval: 5 * time.Millisecond, TrailingEntries: 5,
	})
	if err != nil {
		return err
	}
	ctx := context.Background()
	failed := make(chan error, 9)
	go func() { failed <- node.Run(ctx) }()
	for worker := range 8 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("r%s-w%d-%d", run, worker, i)
				command, err := fleet.NewCommand(time.Now(), enrolment(id))
				if err != nil {
					failed <- err
					return
				}
				for range 1 + i%2 { // every other command twice
					results, err := node.Propose(ctx, command)
					if err == nil {
						err = results[0].Err()
					}
					if err != nil {
						failed <- err
						return
					}
				}
				fmt.Println("ack", id) // one write each: nothing is buffered
			}
		}()
	}
	return <-failed
}

// runAndKill runs a child until some time after its first acknowledgement and
// returns all that it acknowledged.
func runAndKill(t *testing.T, dir string, run int) []string {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", childEnv, dir, run))
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	var acked []string
	var kill sync.Once
	for lines := bufio.NewScanner(out); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		if word != "ack" {
			assert.Fail(t, "the child failed", lines.Text())
			break
		}
		kill.Do(func() {
			time.AfterFunc(rand.N(80*time.Millisecond), func() { _ = child.Process.Kill() })
		})
		acked = append(acked, rest)
	}
	require.Error(t, child.Wait(), "it was killed")
	require.NotEmpty(t, acked)
	return acked
}

func TestKilledUnderLoadKeepsEveryAcknowledgedCommandOnce(t *testing.T) {
	n := clustertest.Start(t)
	token := newToken("load")
	token.ExpiresAt = time.Now().Add(time.Hour)
	require.True(t, n.Do(token).OK())
	n.Stop()

	var acked []string
	for run := range 20 {
		acked = append(acked, runAndKill(t, n.Dir, run)...)
	}

	n = clustertest.Restart(t, n.Dir)
	view := n.State().View()
	for _, id := range acked {
		_, ok := view.Agent(id)
		assert.True(t, ok, "acknowledged agent %s is lost", id)
	}
	stored, ok := view.EnrollmentToken("load")
	require.True(t, ok)
	agents := view.Rows(fleet.TableAgents)
	assert.EqualValues(t, agents, stored.Uses, "each enrolment spends one use")
	assert.GreaterOrEqual(t, agents, len(acked))

	journalReaches(t, n.Journal, fleet.KindAgentEnrolled, agents)
	inJournal := map[string]int{}
	for _, fact := range facts(t, n.Journal, fleet.KindAgentEnrolled) {
		inJournal[fact.Object]++
	}
	assert.Len(t, inJournal, agents)
	for id, times := range inJournal {
		assert.Equal(t, 1, times, "facts of %s", id)
	}
	status, err := n.Journal.Status()
	require.NoError(t, err)
	assert.Empty(t, status.Gaps)
	t.Logf("%d acknowledged, %d stored in 20 runs", len(acked), agents)
}
