//go:build linux

package e2e

import (
	"encoding/base64"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
)

// badStart is something that must keep a daemon from starting.
type badStart struct {
	name string
	// spoil changes what the daemon will find. It returns what is undone after
	// the start was refused, after which the daemon has to start; nil leaves it
	// spoilt.
	spoil func(t *testing.T, home, state string) (mend func())
	words []string // of the error, which name the file and the mend
	// changes: the state is known to change, and only the error is looked at.
	changes bool
	// command, if not nil, makes another command line of the usual one.
	command func(cmd *exec.Cmd) *exec.Cmd
}

// program is a daemon to be spoilt.
type program struct {
	name  string
	setUp func(t *testing.T) (home, state string, env []string, args []string)
}

var agentProgram = program{"certctl-agent", func(t *testing.T) (string, string, []string, []string) {
	a := newAgent(t, "the agent", nil)
	a.startAndAwait()
	a.stop()
	return a.home, a.state, a.env, []string{"run", "--config", a.config}
}}

var coordinatorProgram = program{"certctl-coordinator", func(t *testing.T) (string, string, []string, []string) {
	c := startCoordinator(t)
	c.newToken("www.example")
	c.stop()
	return c.home, c.data, c.env, c.args
}}

func (p program) refuses(t *testing.T, bad badStart) {
	t.Run(p.name+"/"+bad.name, func(t *testing.T) {
		t.Parallel()
		home, state, env, args := p.setUp(t)
		mend := bad.spoil(t, home, state)
		before := photograph(t, home)
		cmd := command(env, filepath.Join(binDir, p.name), args...)
		if bad.command != nil {
			cmd = bad.command(cmd)
		}
		refusedStart(t, run(t, cmd), p.name, bad.words...)
		if !bad.changes {
			assert.Equal(t, before, photograph(t, home), "every file as it was")
		}
		if mend == nil {
			return
		}
		mend()
		again := newDaemon(t, p.name+" after the mend", p.name, env, args...)
		again.start()
		again.awaitReady(2*time.Minute, func() error { return answers(p.name, home, env) })
		again.stop()
	})
}

// answers reports whether a daemon is up: an agent by its socket, a coordinator
// by its port.
func answers(program, home string, env []string) error {
	network, address := "unix", filepath.Join(home, "a.sock")
	if program == coordinatorProgram.name {
		network = "tcp"
		for _, entry := range env {
			if value, found := strings.CutPrefix(entry, "CERTCTL_SERVER_LISTEN="); found {
				address = value
			}
		}
	}
	conn, err := net.DialTimeout(network, address, 30*time.Second)
	if err == nil {
		err = conn.Close()
	}
	return err
}

// spoilFile is a spoil that changes one file and puts it back afterwards.
func spoilFile(path func(state string) string, change func(t *testing.T, path string)) func(*testing.T, string, string) func() {
	return func(t *testing.T, _, state string) func() {
		file := path(state)
		good, err := os.ReadFile(file)
		require.NoError(t, err)
		change(t, file)
		return func() { require.NoError(t, os.WriteFile(file, good, 0o600)) }
	}
}

// moveAway takes files or folders out of the state.
func moveAway(names ...string) func(*testing.T, string, string) func() {
	return func(t *testing.T, _, state string) func() {
		aside := t.TempDir()
		for i, name := range names {
			require.NoError(t, os.Rename(filepath.Join(state, name), filepath.Join(aside, strconv.Itoa(i))))
		}
		return func() {
			for i, name := range names {
				require.NoError(t, os.Rename(filepath.Join(aside, strconv.Itoa(i)), filepath.Join(state, name)))
			}
		}
	}
}

func in(names ...string) func(string) string {
	return func(state string) string { return filepath.Join(append([]string{state}, names...)...) }
}

// overwriteHead destroys both meta pages of a database.
func overwriteHead(t *testing.T, path string) { overwrite(t, path, 2*4096) }

func writeText(t *testing.T, path string) {
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("these are the notes of somebody else\n", 500)), 0o600))
}

// otherProgram is a sound database of another program.
func otherProgram(t *testing.T, path string) {
	require.NoError(t, os.Remove(path))
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte("recipes"))
		return err
	}))
	require.NoError(t, db.Close())
}

// Whatever stands in the way of a start is said once, with the file and the
// mend, and nothing is changed; after the mend the daemon starts.
func TestBadStarts(t *testing.T) {
	t.Parallel()
	for _, bad := range []badStart{
		{name: "misspelt key", words: []string{"agent.yaml:2:3", "tick_intervall", "did you mean", "tick_interval"},
			spoil: func(t *testing.T, home, _ string) func() {
				require.NoError(t, os.WriteFile(filepath.Join(home, "agent.yaml"), []byte("renewal:\n  tick_intervall: 1s\n"), 0o600))
				return nil
			}},
		{name: "text as state file", words: []string{"state.db", "move"}, spoil: spoilFile(in("state.db"), writeText)},
		{name: "state file of another program", words: []string{"state.db", "not a state file of certctl-agent", "move this file away"},
			spoil: spoilFile(in("state.db"), otherProgram)},
		{name: "overwritten state file", words: []string{"state.db", "move"}, spoil: spoilFile(in("state.db"), overwriteHead)},
		{name: "truncated state file", words: []string{"state.db", "damaged", "restore it from a backup"}, spoil: spoilFile(in("state.db"), truncate)},
		{name: "socket in use", words: []string{"a.sock", "control.socket"}, changes: true,
			spoil: func(t *testing.T, home, _ string) func() {
				listener, err := net.Listen("unix", filepath.Join(home, "a.sock"))
				require.NoError(t, err)
				t.Cleanup(func() { _ = listener.Close() })
				return func() { _ = listener.Close() }
			}},
	} {
		agentProgram.refuses(t, bad)
	}
	for _, bad := range []badStart{
		{name: "misspelt key", words: []string{"coordinator.yaml:2:3", "sync_intervall", "did you mean", "sync_interval"},
			spoil: func(t *testing.T, home, _ string) func() {
				path := filepath.Join(home, "coordinator.yaml")
				require.NoError(t, os.WriteFile(path, []byte("fleet:\n  sync_intervall: 1s\n"), 0o600))
				return func() { require.NoError(t, os.WriteFile(path, nil, 0o600)) }
			}},
		{name: "text as Raft log", words: []string{"raft/log.db", "damaged", "restore the directory from a backup"}, spoil: spoilFile(in("raft", "log.db"), writeText)},
		{name: "overwritten Raft log", words: []string{"raft/log.db", "damaged"}, spoil: spoilFile(in("raft", "log.db"), overwriteHead)},
		{name: "truncated Raft log", words: []string{"raft/log.db", "damaged"}, spoil: spoilFile(in("raft", "log.db"), truncate)},
		{name: "no Raft log", words: []string{"raft/log.db", "missing", "restore the whole directory from a backup"}, spoil: moveAway("raft/log.db")},
		{name: "no Raft state", words: []string{"raft missing", "there are journal.db, node-id, seal.key, cluster, root.pem, admin.token", "move the directory away"}, spoil: moveAway("raft")},
		{name: "no Raft state and no journal", words: []string{"raft, journal.db missing", "restore the whole directory from a backup"}, spoil: moveAway("raft", "journal.db")},
		{name: "no journal", words: []string{"journal.db missing", "restore the whole directory from a backup"}, spoil: moveAway("journal.db")},
		{name: "no node id", words: []string{"node-id missing"}, spoil: moveAway("node-id")},
		{name: "text as journal", words: []string{"journal.db", "not a journal", "move the file away"}, spoil: spoilFile(in("journal.db"), writeText)},
		{name: "journal of another program", words: []string{"journal.db", "not a journal", "move the file away"}, spoil: spoilFile(in("journal.db"), otherProgram)},
		{name: "overwritten journal", words: []string{"journal.db", "not a journal"}, spoil: spoilFile(in("journal.db"), overwriteHead)},
		{name: "truncated journal", words: []string{"journal.db", "damaged", "restore it from a backup"}, spoil: spoilFile(in("journal.db"), truncate)},
		// The node has to read its log, and thereby join its own cluster, before
		// it knows what the key has to open.
		{name: "another seal key", words: []string{"seal.key", "another seal key", "give this node the seal key"}, changes: true,
			spoil: spoilFile(in("seal.key"), func(t *testing.T, path string) {
				key := make([]byte, 32)
				key[0] = 1
				require.NoError(t, os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600))
			})},
		{name: "no seal key", words: []string{"seal.key", "missing", "backup"}, changes: true,
			spoil: spoilFile(in("seal.key"), func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) })},
		{name: "text as seal key", words: []string{"seal.key", "backup"}, changes: true, spoil: spoilFile(in("seal.key"), writeText)},
	} {
		coordinatorProgram.refuses(t, bad)
	}
	for _, p := range []program{agentProgram, coordinatorProgram} {
		p.refuses(t, readOnlyDirectory())
		p.refuses(t, directoryOfOthers())
		p.refuses(t, badStart{name: "open to others", words: []string{"chmod 0700"},
			spoil: func(t *testing.T, _, state string) func() {
				require.NoError(t, os.Chmod(state, 0o755))
				return func() { require.NoError(t, os.Chmod(state, 0o700)) }
			}})
	}
}

// readOnlyDirectory is a state directory on a file system that is mounted
// read-only, where the kernel lets the test mount one; else one whose mode says
// so, for a user whom modes stop.
func readOnlyDirectory() badStart {
	bad := badStart{name: "read-only directory", spoil: func(*testing.T, string, string) func() { return func() {} }}
	namespace := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		namespace = []string{"unshare", "--mount", "--map-root-user"}
	}
	if exec.Command(namespace[0], append(namespace[1:], "true")...).Run() != nil && os.Geteuid() != 0 {
		bad.name += " by its mode"
		bad.words = []string{"state", "read-only"}
		bad.spoil = func(t *testing.T, _, state string) func() {
			require.NoError(t, os.Chmod(state, 0o500))
			return func() { require.NoError(t, os.Chmod(state, 0o700)) }
		}
		return bad
	}
	bad.words = []string{"cannot be written", "read-only"}
	bad.command = func(cmd *exec.Cmd) *exec.Cmd {
		// The mount is seen by this process alone and goes with it.
		script := `dir=$1; shift; mount --bind "$dir" "$dir" && mount -o remount,bind,ro "$dir" && exec "$@"`
		home := filepath.Dir(cmd.Args[len(cmd.Args)-1]) // of the configuration file
		args := append(namespace[1:], "sh", "-c", script, "sh", home)
		return command(cmd.Env, namespace[0], append(args, cmd.Args...)...)
	}
	return bad
}

// directoryOfOthers is a state directory that belongs to another user.
func directoryOfOthers() badStart {
	bad := badStart{name: "directory of another user", words: []string{"belongs to user id", "chown"}}
	if os.Geteuid() == 0 {
		bad.spoil = func(t *testing.T, _, state string) func() {
			giveAway(t, state)
			return func() {
				require.NoError(t, filepath.Walk(state, func(path string, _ os.FileInfo, err error) error {
					if err != nil {
						return err
					}
					return os.Lchown(path, 0, 0)
				}))
			}
		}
		return bad
	}
	// Whoever may not give files away finds some that are not his.
	bad.spoil = func(*testing.T, string, string) func() { return nil }
	bad.command = func(cmd *exec.Cmd) *exec.Cmd {
		setting := "state_dir=/usr"
		if strings.HasSuffix(cmd.Path, coordinatorProgram.name) {
			setting = "data_dir=/usr"
		}
		return command(cmd.Env, cmd.Path, append(cmd.Args[1:], "--set", setting)...)
	}
	return bad
}

// A port that somebody else has keeps the coordinator from starting, before it
// has made any state.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	c := newCoordinator(t)
	listener, err := net.Listen("tcp", c.address)
	require.NoError(t, err)
	refusedStart(t, call(t, c.env, "certctl-coordinator", c.args...), "certctl-coordinator", c.address, "in use", "server.listen")
	assert.NoDirExists(t, c.data)
	require.NoError(t, listener.Close())
	c.start()
	c.awaitServing()

	before := settledPhotograph(t, c.data)
	refusedStart(t, call(t, c.env, "certctl-coordinator", c.args...), "certctl-coordinator", c.address, "in use")
	assert.Equal(t, before, photograph(t, c.data))
}

// A second instance on the same state is told about the first, which goes on.
func TestSecondInstance(t *testing.T) {
	t.Parallel()
	c := startCoordinator(t)
	a := newAgent(t, "the agent", nil)
	a.startAndAwait()
	before := photograph(t, a.state)
	refusedStart(t, a.call("run"), "certctl-agent", "state.db", "another certctl-agent", "stop")
	refusedStart(t, a.call("run", "--set", "control.socket="+filepath.Join(a.home, "b.sock")), "certctl-agent", "state.db", "another certctl-agent")
	assert.Equal(t, before, photograph(t, a.state))
	_, err := a.tryStatus()
	require.NoError(t, err, "the first one goes on")

	before = settledPhotograph(t, c.data)
	refusedStart(t, call(t, c.env, "certctl-coordinator", append(c.args, "--set", "server.listen=127.0.0.1:0")...),
		"certctl-coordinator", c.data, "another coordinator", "stop")
	assert.Equal(t, before, photograph(t, c.data))
	require.NoError(t, c.connect(), "the first one goes on")
}
