package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	stdsync "sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/service"
	"github.com/certctl/certctl/shared/settings"
)

// logged is what was logged, for one test.
type logged struct {
	mu   stdsync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), words)
}

// watchFile starts to watch a file with that text, and an engine that does not run.
func watchFile(t *testing.T, text string) (path string, c *configuration, log *logged) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "agent.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	load := func() (*config.Settings, *settings.Report, error) {
		s := new(config.Settings)
		report, err := settings.Load(s, settings.Options{File: path})
		return s, report, err
	}
	s, report, err := load()
	require.NoError(t, err)
	st, err := store.Open(filepath.Join(dir, "state", "state.db"), store.Options{Now: time.Now})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, st.Close()) })
	dirs, err := keys.OpenDir(filepath.Join(dir, "keys"))
	require.NoError(t, err)
	log = new(logged)
	logger := slog.New(slog.NewTextHandler(log, nil))
	p := &parts{settings: s, report: report, accountKeys: nowhere{}, issuerState: nowhere{}, coordinator: absentAt, log: logger}
	r, err := newRoll(p, st)
	require.NoError(t, err)
	engine, err := renewal.New(renewal.Config{
		Store: st, Keys: dirs, ScratchDir: filepath.Join(dir, "scratch"), Log: logger, Managed: r.local,
	})
	require.NoError(t, err)
	c = &configuration{
		load: load, path: path, roll: r, engine: engine, level: new(slog.LevelVar), tell: func(sync.Made) {},
		expect: func(...string) {}, now: time.Now, settings: s, report: report, log: logger,
	}
	c.tried = look(c.files(s, report))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.watch(ctx, service.Lifecycle{}) }()
	t.Cleanup(func() { cancel(); assert.NoError(t, <-ended) })
	return path, c, log
}

func (c *configuration) names(t *testing.T) (names []string) {
	t.Helper()
	status, err := c.engine.Status()
	require.NoError(t, err)
	for _, s := range status {
		names = append(names, s.Record.Name)
	}
	return names
}

// A change of the file is in effect after two looks; one that cannot be is told
// once, stays to be seen, and ends with its mend. A file that is empty or gone
// takes nothing away.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const one, two = "certificates: [{name: a, names: [a.example]}]\n", "certificates: [{name: a, names: [a.example]}, {name: b, names: [b.example]}]\n"
		path, c, log := watchFile(t, one)
		write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
		pass := func(d time.Duration) { <-time.After(d); synctest.Wait() }
		const soon = 15 * time.Second
		const told = "configuration on disk is not in effect"

		pass(time.Hour)
		assert.Zero(t, log.count("configuration is in effect"), "nothing changed")
		write(two)
		pass(soon)
		assert.Equal(t, []string{"a", "b"}, c.names(t))

		for text, words := range map[string]string{
			"renewal: {concurrency: many}\n":  path + ":1:24: renewal.concurrency",
			"state_dir: /var/lib/elsewhere\n": "state_dir: cannot be changed while the agent runs",
			"":                                "is empty",
		} {
			before := log.count(told)
			write(text)
			_, problem := c.standing()
			assert.Contains(t, problem, words, "told at once")
			pass(time.Hour)
			_, problem = c.standing()
			assert.Contains(t, problem, words)
			warned, err := hostWarnings(c, c.roll, c.roll.store)
			require.NoError(t, err)
			assert.Equal(t, []string{notInEffect(problem)}, warned, "what the coordinator and the metrics are told")
			assert.Equal(t, before+1, log.count(told), "told once: %s", words)
			assert.Equal(t, []string{"a", "b"}, c.names(t))
			write(two)
			pass(soon)
			_, problem = c.standing()
			assert.Empty(t, problem, "after %s", words)
			warned, err = hostWarnings(c, c.roll, c.roll.store)
			require.NoError(t, err)
			assert.Empty(t, warned)
		}

		require.NoError(t, os.Remove(path))
		pass(soon)
		_, problem := c.standing()
		assert.Contains(t, problem, "is not there any more")
		assert.Equal(t, []string{"a", "b"}, c.names(t))
		write(one)
		pass(soon)
		assert.Equal(t, []string{"a"}, c.names(t))
	})
}

// A file that is written slowly is not read before it is whole.
func TestWatchWaitsForTheEndOfWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, c, log := watchFile(t, "certificates: []\n")
		file, err := os.Create(path)
		require.NoError(t, err)
		for _, piece := range strings.SplitAfter("certificates:\n  - name: a\n    names: [a.example]\n  - name: b\n    names: [b.example]\n    issuer: coordinator\n", "\n") {
			_, err := file.WriteString(piece)
			require.NoError(t, err)
			<-time.After(settleTime - time.Millisecond)
		}
		require.NoError(t, file.Close())
		<-time.After(30 * time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"a", "b"}, c.names(t))
		assert.Zero(t, log.count("not in effect"))
		assert.Equal(t, 1, log.count("configuration is in effect"))
	})
}

// The files that the configuration names are its own too, and one that it lacked
// is found when it comes.
func TestWatchFollowsNamedFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, c, _ := watchFile(t, "certificates: []\n")
		secret := filepath.Join(filepath.Dir(path), "secret")
		text := "issuers:\n  one: {acme: {directory: https://one.example/directory, terms_agreed: true, eab: {key_id: k, hmac_key_file: secret}}}\n"
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		<-time.After(15 * time.Second)
		synctest.Wait()
		_, problem := c.standing()
		assert.Contains(t, problem, "hmac_key_file")

		require.NoError(t, os.WriteFile(secret, []byte("c2VjcmV0"), 0o600))
		<-time.After(2 * time.Minute)
		synctest.Wait()
		_, problem = c.standing()
		assert.Empty(t, problem)
		first := c.roll.current().made["one"].issuer

		require.NoError(t, os.WriteFile(secret, []byte("YW5vdGhlcg"), 0o600))
		<-time.After(15 * time.Second)
		synctest.Wait()
		assert.NotSame(t, first, c.roll.current().made["one"].issuer, "the changed secret is in effect")
	})
}
