//go:build linux

package file

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/deploy/command"
	"github.com/certctl/certctl/internal/testnginx"
	"github.com/certctl/certctl/shared/durable"
)

// web is a host with a real nginx that serves from the target's files.
type web struct {
	*host
	server *testnginx.Server
	pairs  map[string]pair
}

// newWeb starts nginx with the old pair in place and served.
func newWeb(t *testing.T, layout Layout) (*web, Config) {
	t.Helper()
	w := &web{host: newHost(t), pairs: map[string]pair{"old": newPair(t), "new": newPair(t)}}
	w.paths = Paths{FullChain: w.paths.FullChain, Key: w.paths.Key}
	w.mustDeploy(t, w.host.config(layout), w.pairs["old"], 1)
	var err error
	w.server, err = testnginx.Start(t.TempDir(), testnginx.Options{
		Sites: []testnginx.Site{{Name: site, Certificate: w.paths.FullChain, Key: w.paths.Key}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, w.server.Stop()) })
	w.requireServed(t, "old")

	config := w.host.config(layout)
	config.Check = &command.Config{Argv: w.server.CheckArgv()}
	config.Reload = &command.Config{Argv: w.server.ReloadArgv()}
	config.Probe = &Probe{Address: w.server.Address(), ServerName: site, Patience: time.Minute}
	return w, config
}

// served is the name of the pair on the wire.
func (w *web) served(t *testing.T) string {
	t.Helper()
	fingerprint, err := w.server.Fingerprint(context.Background(), site)
	require.NoError(t, err)
	for name, p := range w.pairs {
		if p.fingerprint() == fingerprint {
			return name
		}
	}
	return "unknown"
}

// awaitServed waits until a pair is on the wire. After a reload the workers of
// before go on accepting connections for a moment beside the new ones, until the
// master's word to quit reaches them: so one answer is not yet the last word.
func (w *web) awaitServed(t *testing.T, name string) {
	t.Helper()
	inRow := 0
	assert.Eventually(t, func() bool {
		fingerprint, err := w.server.Fingerprint(context.Background(), site)
		if err != nil || fingerprint != w.pairs[name].fingerprint() {
			inRow = 0
			return false
		}
		inRow++
		return inRow >= 5
	}, 30*time.Second, 5*time.Millisecond, "%s on the wire", name)
}

// requireServed checks the wire and the disk.
func (w *web) requireServed(t *testing.T, name string) {
	t.Helper()
	w.awaitServed(t, name)
	assert.Equal(t, name, w.found(t, w.pairs), "on the disk")
	w.requireTidy(t)
}

func eachLayout(t *testing.T, f func(*testing.T, Layout)) {
	for _, layout := range layouts() {
		t.Run(string(layout), func(t *testing.T) {
			t.Parallel()
			f(t, layout)
		})
	}
}

func TestNginxServesTheNewCertificate(t *testing.T) {
	t.Parallel()
	eachLayout(t, func(t *testing.T, layout Layout) {
		w, config := newWeb(t, layout)
		target := newTarget(t, config)
		require.True(t, target.Probed())
		require.NoError(t, target.Verify(context.Background(), w.pairs["old"].chain[0]))

		report := w.mustDeploy(t, config, w.pairs["new"], 2)
		assert.True(t, report.Changed)
		assert.True(t, report.Verified)
		w.requireServed(t, "new")
		require.NoError(t, target.Verify(context.Background(), w.pairs["new"].chain[0]))
		require.Error(t, target.Verify(context.Background(), w.pairs["old"].chain[0]))

		assert.Equal(t, &deploy.Report{Verified: true, Detail: "everything was in place and in use"},
			w.mustDeploy(t, config, w.pairs["new"], 2))

		// And back again, since the verification fails.
		config.VerifyCommand = shell("exit 1")
		_, err := newTarget(t, config).Deploy(context.Background(), w.task(w.pairs["old"], 3))
		assert.True(t, requireFailure(t, err, deploy.StageVerify).RolledBack)
		w.requireServed(t, "new")
	})
}

func TestNginxIsReloadedIfFilesAreInPlaceButNotServed(t *testing.T) {
	t.Parallel()
	w, config := newWeb(t, LayoutFiles)
	w.mustDeploy(t, w.host.config(LayoutFiles), w.pairs["new"], 2) // nobody told nginx
	require.Equal(t, "old", w.served(t))
	report := w.mustDeploy(t, config, w.pairs["new"], 2)
	assert.True(t, report.Changed)
	w.requireServed(t, "new")
}

func TestNginxKeepsServingTheOldCertificate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stage  deploy.Stage
		set    func(t *testing.T, w *web, c *Config)
		output string
	}{
		"its check fails": {deploy.StageCheck, func(t *testing.T, w *web, _ *Config) {
			require.NoError(t, os.WriteFile(w.server.ConfigPath(), []byte("nonsense;\n"), 0o600))
		}, "unknown directive \"nonsense\""},
		"the reload command fails": {deploy.StageReload, func(_ *testing.T, _ *web, c *Config) {
			c.Reload = shell("echo no such service; exit 5")
		}, "no such service"},
		"the reload has no effect": {deploy.StageVerify, func(_ *testing.T, _ *web, c *Config) {
			c.Reload = shell("true")
			c.Probe.Patience = 300 * time.Millisecond
		}, ""},
		// Neither the check nor the reload command notices that a port is taken.
		"the reload is refused later": {deploy.StageVerify, func(t *testing.T, w *web, c *Config) {
			taken, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			t.Cleanup(func() { taken.Close() })
			config, err := os.ReadFile(w.server.ConfigPath())
			require.NoError(t, err)
			text := strings.ReplaceAll(string(config), w.server.Address(), taken.Addr().String())
			require.NoError(t, os.WriteFile(w.server.ConfigPath(), []byte(text), 0o600))
			c.Probe.Patience = 500 * time.Millisecond
		}, ""},
		"the verify command fails": {deploy.StageVerify, func(_ *testing.T, _ *web, c *Config) {
			c.VerifyCommand = shell("echo not good; exit 1")
		}, "not good"},
		"the check fails after a restart by somebody else": {deploy.StageCheck, func(_ *testing.T, w *web, c *Config) {
			// It waits until the new certificate is really in use.
			c.Check = shell(strings.Join(w.server.ReloadArgv(), " ") + "; sleep 0.5; exit 1")
		}, ""},
		"the wrong address is probed": {deploy.StageVerify, func(_ *testing.T, _ *web, c *Config) {
			c.Probe.Address = "127.0.0.1:1"
			c.Probe.Patience = 200 * time.Millisecond
			c.Reload = shell("true")
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, config := newWeb(t, LayoutFiles)
			c.set(t, w, &config)
			_, err := newTarget(t, config).Deploy(context.Background(), w.task(w.pairs["new"], 2))
			failed := requireFailure(t, err, c.stage)
			assert.True(t, failed.RolledBack, "%v", failed.RollbackErr)
			assert.Contains(t, failed.Output, c.output)
			w.requireServed(t, "old")
		})
	}
}

// TestNginxThatStaysBroken: the way back is blocked too, and the report says so.
func TestNginxThatStaysBroken(t *testing.T) {
	t.Parallel()
	w, config := newWeb(t, LayoutFiles)
	config.Probe.Patience = 5 * time.Second // enough for the reload, since only then comes the command
	config.VerifyCommand = &command.Config{Argv: []string{"/bin/sh", "-c", "echo nonsense >" + w.server.ConfigPath() + "; exit 1"}}
	_, err := newTarget(t, config).Deploy(context.Background(), w.task(w.pairs["new"], 2))
	failed := requireFailure(t, err, deploy.StageVerify)
	assert.False(t, failed.RolledBack)
	require.ErrorContains(t, failed.RollbackErr, "reload")
	w.awaitServed(t, "new")
	assert.Equal(t, "old", w.found(t, w.pairs), "the files at least are as they were")
	w.requireTidy(t)
}

// TestNginxAfterACrash dies at each step that nginx could notice; a new process goes on.
func TestNginxAfterACrash(t *testing.T) {
	t.Parallel()
	for _, at := range []durable.Step{stepRename, stepReload, stepClose} {
		for _, verified := range []bool{true, false} {
			t.Run(string(at), func(t *testing.T) {
				t.Parallel()
				w, config := newWeb(t, LayoutFiles)
				target := newTarget(t, config)
				target.hook = func(s durable.Step, _ string, done bool) error {
					if s == at && done == (at != stepClose) {
						panic(crash{})
					}
					return nil
				}
				require.Panics(t, func() { _, _ = target.Deploy(context.Background(), w.task(w.pairs["new"], 2)) })

				if verified {
					assert.True(t, w.mustDeploy(t, config, w.pairs["new"], 2).Verified)
					w.requireServed(t, "new")
					return
				}
				config.VerifyCommand = shell("exit 1")
				_, err := newTarget(t, config).Deploy(context.Background(), w.task(w.pairs["new"], 2))
				assert.True(t, requireFailure(t, err, deploy.StageVerify).RolledBack)
				w.requireServed(t, "old")
			})
		}
	}
}

// TestNginxThatIsNotRunning: nothing was served before, so going back is complete with the files.
func TestNginxThatIsNotRunning(t *testing.T) {
	t.Parallel()
	w, config := newWeb(t, LayoutFiles)
	require.NoError(t, w.server.Stop())
	config.Reload = shell("true")
	config.Probe.Patience = 200 * time.Millisecond
	_, err := newTarget(t, config).Deploy(context.Background(), w.task(w.pairs["new"], 2))
	failed := requireFailure(t, err, deploy.StageVerify)
	require.ErrorContains(t, failed, "connection refused")
	assert.True(t, failed.RolledBack)
	assert.Equal(t, "old", w.found(t, w.pairs))
	w.requireTidy(t)
}
