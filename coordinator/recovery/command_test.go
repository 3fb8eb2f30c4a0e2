package recovery

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/durable"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dataDir is the data directory of a node with a CA and so many tokens, and the
// running node.
func dataDir(t *testing.T, ids ...string) (string, *clustertest.Node) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	require.NoError(t, durable.EnsurePrivateDir(dir))
	require.NoError(t, os.WriteFile(filepath.Join(dir, nodeIDFile), []byte("test\n"), 0o600))
	authority, err := ca.New(ca.Config{
		SealKeyFile: filepath.Join(dir, sealKeyFile), Name: "Example", LeafLifetime: time.Hour, IdentityLifetime: time.Hour,
	})
	require.NoError(t, err)
	node := clustertest.Restart(t, dir)
	require.NoError(t, server.Bootstrap(t.Context(), node, authority, dir, slog.New(slog.DiscardHandler)))
	for _, id := range ids {
		require.True(t, node.Do(fleet.CreateEnrollmentToken{ID: id}).OK())
	}
	return dir, node
}

// command runs one command line.
func command(t *testing.T, dir string, args ...string) (stdout string, err error) {
	t.Helper()
	source := &cli.Source{DefaultFile: filepath.Join(t.TempDir(), "none.yaml")}
	root := &cobra.Command{Use: "certctl-coordinator", SilenceUsage: true, SilenceErrors: true}
	source.Bind(root)
	root.AddCommand(Command(source))
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(append([]string{"recover", "--set", "data_dir=" + dir}, args...))
	err = root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestARecoveryByTheCommandLine(t *testing.T) {
	dir, node := dataDir(t, "one", "two")
	_, err := command(t, dir, "inspect")
	require.Error(t, err, "the node runs")
	_, err = command(t, dir, "run", "--yes")
	require.Error(t, err)
	node.Stop()

	text, err := command(t, dir, "inspect")
	require.NoError(t, err)
	for _, part := range []string{"enrollment_tokens 2", "opens the CA", "test at test, voter"} {
		assert.Contains(t, text, part)
	}
	text, err = command(t, dir, "inspect", "--output", "json")
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "test.json")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	before, err := ReadReport(bytes.NewReader([]byte(text)))
	require.NoError(t, err)
	assert.Equal(t, 2, before.Rows["enrollment_tokens"])
	assert.Len(t, before.ClusterID, 16)
	assert.Positive(t, before.Entries[len(before.Entries)-1].Index)
	assert.NotContains(t, text, "PRIVATE")

	_, err = command(t, dir, "plan", file)
	require.ErrorContains(t, err, "nothing to recover", "a cluster of one has its majority")
	_, err = command(t, dir, "run")
	require.ErrorContains(t, err, "--yes")
	text, err = command(t, dir, "run", "--dry-run")
	require.NoError(t, err)
	assert.Contains(t, text, "Nothing was changed")
	again, err := command(t, dir, "inspect", "--output", "json")
	require.NoError(t, err)
	after := new(Report)
	require.NoError(t, json.Unmarshal([]byte(again), after))
	after.Time = before.Time
	assert.Equal(t, before, after, "nothing was changed")

	text, err = command(t, dir, "run", "--yes", "--output", "json")
	require.NoError(t, err)
	var done outcome
	require.NoError(t, json.Unmarshal([]byte(text), &done))
	assert.Equal(t, before.LastIndex, done.Recovery.LastIndex)
	assert.DirExists(t, filepath.Join(dir, done.Recovery.Kept))
	node = clustertest.Restart(t, dir)
	for _, id := range []string{"one", "two"} {
		_, ok := node.State().View().EnrollmentToken(id)
		assert.True(t, ok)
	}
	assert.True(t, node.Do(fleet.CreateEnrollmentToken{ID: "three"}).OK())
}

// What was begun is finished by the same command, and by no other.
func TestARecoveryThatWasCutOffIsFinished(t *testing.T) {
	dir, node := dataDir(t, "one")
	node.Stop()
	n := &cluster.Recovery{Version: 1, NodeID: "test", Servers: []cluster.ServerReport{{ID: "test", Address: "test", Voter: true}}, Kept: "raft.kept"}
	text, err := command(t, dir, "inspect", "--output", "json")
	require.NoError(t, err)
	r, err := ReadReport(bytes.NewReader([]byte(text)))
	require.NoError(t, err)
	n.LastIndex, n.LastTerm = r.LastIndex, r.LastTerm
	intent, err := json.Marshal(n)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "recovery.json"), intent, 0o600))
	for _, args := range [][]string{{"run", "--dry-run"}, {"run"}} {
		_, err = command(t, dir, args...)
		require.ErrorIs(t, err, cluster.ErrRecovering)
	}
	text, err = command(t, dir, "run", "--yes")
	require.NoError(t, err)
	assert.Contains(t, text, "is finished")
	assert.DirExists(t, filepath.Join(dir, "raft.kept"))
	clustertest.Restart(t, dir)
}

func TestWhatCannotBeRecoveredIsSaid(t *testing.T) {
	dir, node := dataDir(t, "one")
	node.Stop()
	key, err := os.ReadFile(filepath.Join(dir, sealKeyFile))
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, sealKeyFile)))
	text, err := command(t, dir, "inspect")
	require.NoError(t, err)
	assert.Contains(t, text, "seal key of the built-in CA is missing")
	_, err = command(t, dir, "run", "--yes")
	require.ErrorContains(t, err, "seal key")
	require.NoError(t, os.WriteFile(filepath.Join(dir, sealKeyFile), key, 0o600))

	snapshots, err := filepath.Glob(filepath.Join(dir, "raft", "snapshots", "*", "state.bin"))
	require.NoError(t, err)
	require.NotEmpty(t, snapshots)
	for _, path := range snapshots {
		require.NoError(t, os.Truncate(path, 10))
	}
	text, err = command(t, dir, "inspect", "--output", "json")
	require.ErrorContains(t, err, "cannot be recovered from")
	r, err := ReadReport(bytes.NewReader([]byte(text)))
	require.NoError(t, err, "the report is there all the same")
	assert.NotEmpty(t, r.StateProblem)
	_, err = command(t, dir, "run", "--yes")
	require.ErrorContains(t, err, "cannot be recovered from")
	assert.NoFileExists(t, filepath.Join(dir, "recovery.json"))

	_, err = command(t, t.TempDir(), "inspect")
	require.ErrorContains(t, err, "no data directory")
	_, err = command(t, dir, "plan")
	require.Error(t, err)
	_, err = command(t, dir, "plan", filepath.Join(dir, "none.json"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A journal that is lost does not keep the state from being recovered, if a
// person says so; what is missing in the new one is marked.
func TestARecoveryWithoutItsJournal(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"damaged": func(path string) error { return os.Truncate(path, 5000) },
		"missing": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			dir, node := dataDir(t, "one")
			node.Stop()
			path := filepath.Join(dir, journalFile)
			require.NoError(t, spoil(path))
			text, err := command(t, dir, "inspect")
			require.NoError(t, err)
			assert.Contains(t, text, "journal")
			_, err = command(t, dir, "run", "--yes")
			require.ErrorContains(t, err, "--new-journal")
			assert.NoFileExists(t, filepath.Join(dir, "recovery.json"))
			_, err = command(t, dir, "run", "--yes", "--new-journal")
			require.NoError(t, err)
			aside, err := filepath.Glob(path + ".before-recovery-*")
			require.NoError(t, err)
			assert.Len(t, aside, map[string]int{"damaged": 1}[name])

			node = clustertest.Restart(t, dir)
			_, ok := node.State().View().EnrollmentToken("one")
			assert.True(t, ok)
			status, err := node.Journal.Status()
			require.NoError(t, err)
			assert.NotEmpty(t, status.Gaps)
		})
	}
}

// Whoever is not sure whether it was done asks again, at once or much later.
func TestARecoveredNodeIsLeftAsItIs(t *testing.T) {
	dir, node := dataDir(t, "one")
	node.Stop()
	text, err := command(t, dir, "run", "--yes", "--output", "json")
	require.NoError(t, err)
	var done outcome
	require.NoError(t, json.Unmarshal([]byte(text), &done))
	again := func() {
		t.Helper()
		text, err := command(t, dir, "run", "--yes")
		require.NoError(t, err)
		assert.Contains(t, text, "was recovered at "+moment(done.Recovery.Time))
		assert.Contains(t, text, "there is nothing to do")
		kept, err := filepath.Glob(filepath.Join(dir, "raft.before-recovery-*"))
		require.NoError(t, err)
		assert.Equal(t, []string{filepath.Join(dir, done.Recovery.Kept)}, kept)
	}
	again()
	node = clustertest.Restart(t, dir)
	require.True(t, node.Do(fleet.CreateEnrollmentToken{ID: "two"}).OK())
	node.Stop()
	again()
	require.NoError(t, cluster.SettleRecovery(dir, time.Now()))
	again()

	// What is damaged is recovered once more.
	require.NoError(t, os.Remove(filepath.Join(dir, journalFile)))
	_, err = command(t, dir, "run", "--yes")
	require.ErrorContains(t, err, "--new-journal")
}
