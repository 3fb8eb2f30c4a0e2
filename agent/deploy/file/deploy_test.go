//go:build unix

package file

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/deploy/command"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/pki"
)

func (p pair) fingerprint() string { return pki.Fingerprint(p.chain[0]) }

func shell(script string) *command.Config {
	return &command.Config{Argv: []string{"/bin/sh", "-c", script}}
}

func TestDeployAndDeployAgain(t *testing.T) {
	for _, layout := range layouts() {
		t.Run(string(layout), func(t *testing.T) {
			h, p := newHost(t), newPair(t)
			config := h.config(layout)
			count := filepath.Join(filepath.Dir(h.scratch), "scratch", "reloads")
			config.Reload = shell("echo x >>" + count)

			report := h.mustDeploy(t, config, p, 1)
			assert.True(t, report.Changed)
			assert.False(t, report.Verified, "nothing was looked at on the wire")
			assert.Equal(t, "new", h.found(t, map[string]pair{"new": p}))
			require.NoError(t, newTarget(t, config).Verify(context.Background(), p.chain[0]))
			for path, want := range map[string]fs.FileMode{
				h.paths.Key: 0o600, h.paths.Combined: 0o600,
				h.paths.Certificate: 0o644, h.paths.Chain: 0o644, h.paths.FullChain: 0o644,
			} {
				info, err := os.Stat(path)
				require.NoError(t, err)
				assert.Equal(t, want, info.Mode(), path)
			}

			assert.False(t, h.mustDeploy(t, config, p, 1).Changed)
			reloads, err := os.ReadFile(count)
			require.NoError(t, err)
			assert.Equal(t, "x\n", string(reloads), "nothing changed, nothing to reload")
			require.NoError(t, os.Remove(count))
			h.requireTidy(t)
		})
	}
}

func TestCommandsLearnWhatIsDeployedAndNothingSecret(t *testing.T) {
	h, p := newHost(t), newPair(t)
	config := h.config(LayoutFiles)
	out := filepath.Join(t.TempDir(), "env")
	config.Reload = shell("env >" + out)
	h.mustDeploy(t, config, p, 7)
	data, err := os.ReadFile(out)
	require.NoError(t, err)
	env := strings.Split(string(data), "\n")
	for _, want := range []string{"CERTCTL_ACTION=deploy", "CERTCTL_CERTIFICATE=web", "CERTCTL_GENERATION=7",
		"CERTCTL_FINGERPRINT=" + p.fingerprint(),
		"CERTCTL_FILES=" + strings.Join([]string{h.paths.Chain, h.paths.Key, h.paths.Combined, h.paths.Certificate, h.paths.FullChain}, ":")} {
		assert.Contains(t, env, want)
	}
	assert.NotContains(t, string(data), "PRIVATE KEY")
}

func TestFailingCommandsRollBack(t *testing.T) {
	for stage, set := range map[deploy.Stage]func(*Config){
		deploy.StageCheck:  func(c *Config) { c.Check = shell("echo no such site; exit 3") },
		deploy.StageReload: func(c *Config) { c.Reload = shell(`echo no such site; test "$CERTCTL_ACTION" = rollback`) },
		deploy.StageVerify: func(c *Config) { c.VerifyCommand = shell("echo no such site; exit 3") },
	} {
		for _, layout := range layouts() {
			t.Run(string(stage)+"/"+string(layout), func(t *testing.T) {
				h, pairs := newHost(t), map[string]pair{"old": newPair(t), "new": newPair(t)}
				h.mustDeploy(t, h.config(layout), pairs["old"], 1)
				config := h.config(layout)
				set(&config)
				_, err := newTarget(t, config).Deploy(context.Background(), h.task(pairs["new"], 2))
				failed := requireFailure(t, err, stage)
				assert.True(t, failed.RolledBack, "%v", failed.RollbackErr)
				assert.Equal(t, "no such site", failed.Output)
				require.ErrorContains(t, err, "the previous certificate is in service again")
				assert.Equal(t, "old", h.found(t, pairs))
				h.requireTidy(t)
			})
		}
	}
}

func TestFailedFirstDeploymentRemovesWhatItWrote(t *testing.T) {
	for _, layout := range layouts() {
		t.Run(string(layout), func(t *testing.T) {
			h := newHost(t)
			config := h.config(layout)
			config.Check = shell("exit 3")
			_, err := newTarget(t, config).Deploy(context.Background(), h.task(newPair(t), 1))
			failed := requireFailure(t, err, deploy.StageCheck)
			assert.True(t, failed.RolledBack, "%v", failed.RollbackErr)
			require.ErrorContains(t, err, "there was no certificate before, and what was written was removed again")
			assert.NotContains(t, err.Error(), "the previous certificate")
			for _, path := range []string{h.paths.Certificate, h.paths.Key, h.paths.FullChain} {
				assert.NoFileExists(t, path)
			}
		})
	}
}

// TestRollbackWhoseReloadFails: the files are back, but nobody knows what the program uses.
func TestRollbackWhoseReloadFails(t *testing.T) {
	h, pairs := newHost(t), map[string]pair{"old": newPair(t), "new": newPair(t)}
	h.mustDeploy(t, h.config(LayoutFiles), pairs["old"], 1)
	config := h.config(LayoutFiles)
	config.Reload = shell("exit 1")
	_, err := newTarget(t, config).Deploy(context.Background(), h.task(pairs["new"], 2))
	failed := requireFailure(t, err, deploy.StageReload)
	assert.False(t, failed.RolledBack)
	require.Error(t, failed.RollbackErr)
	assert.Equal(t, "old", h.found(t, pairs))
	h.requireTidy(t)
}

func TestRefusedBeforeAnythingChanges(t *testing.T) {
	old := newPair(t)
	for name, c := range map[string]struct {
		prepare func(t *testing.T, h *host, c *Config)
		task    func(*deploy.Task)
		want    string
	}{
		"key of another certificate": {task: func(task *deploy.Task) { task.Key = newKey(t) }, want: "key"},
		"no certificate":             {task: func(task *deploy.Task) { task.Chain = nil }, want: "no certificate"},
		"no key":                     {task: func(task *deploy.Task) { task.Key = nil }, want: "no key"},
		"key readable by everybody": {want: "everybody can read the private key", prepare: func(t *testing.T, h *host, _ *Config) {
			require.NoError(t, os.Chmod(h.paths.Key, 0o644))
		}},
		"directory open to everybody": {want: "chmod o-w", prepare: func(t *testing.T, h *host, _ *Config) {
			require.NoError(t, os.Chmod(h.dir, 0o777))
		}},
		"directory missing": {want: "does not exist", prepare: func(_ *testing.T, h *host, c *Config) {
			c.CreateDirectories = false
			c.Paths.Chain = filepath.Join(h.dir, "missing", "chain.pem")
		}},
		"path is a directory": {want: "is a directory", prepare: func(t *testing.T, h *host, c *Config) {
			c.Paths.Chain = filepath.Join(h.dir, "sub")
			require.NoError(t, os.Mkdir(c.Paths.Chain, 0o755))
		}},
		"file far too large": {want: "larger than", prepare: func(t *testing.T, h *host, _ *Config) {
			require.NoError(t, os.Truncate(h.paths.Chain, maxFileSize+1))
		}},
		"links in a circle": {want: "circle", prepare: func(t *testing.T, h *host, c *Config) {
			c.Paths.Chain = filepath.Join(h.dir, "a")
			require.NoError(t, os.Symlink("b", filepath.Join(h.dir, "a")))
			require.NoError(t, os.Symlink("a", filepath.Join(h.dir, "b")))
		}},
		"two paths to one file": {want: "both paths lead to", prepare: func(t *testing.T, h *host, c *Config) {
			c.Paths.Chain = filepath.Join(h.dir, "link")
			require.NoError(t, os.Symlink("fullchain.pem", c.Paths.Chain))
		}},
		"unknown owner": {want: "owner: ", prepare: func(_ *testing.T, _ *host, c *Config) { c.Owner = "no-such-user-here" }},
		"unknown group": {want: "group: ", prepare: func(_ *testing.T, _ *host, c *Config) { c.Group = "no-such-group-here" }},
		"state cannot be saved": {want: "store is full", task: func(task *deploy.Task) {
			task.Save = func(json.RawMessage) error { return errors.New("store is full") }
		}},
		"link in an untrusted directory": {want: "symbolic link", prepare: func(t *testing.T, h *host, c *Config) {
			c.AllowUntrustedDirectories = true
			c.Paths.Chain = filepath.Join(h.dir, "link")
			require.NoError(t, os.Symlink("elsewhere", c.Paths.Chain))
		}},
		"no scratch directory": {want: "open transaction", task: func(task *deploy.Task) { task.ScratchDir += "-missing" }},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.mustDeploy(t, h.config(LayoutFiles), old, 1)
			config := h.config(LayoutFiles)
			if c.prepare != nil {
				c.prepare(t, h, &config)
			}
			before := listing(t, h.dir)
			task := h.task(newPair(t), 2)
			if c.task != nil {
				c.task(task)
			}
			_, err := newTarget(t, config).Deploy(context.Background(), task)
			failed := requireFailure(t, err, deploy.StagePrepare)
			require.ErrorContains(t, err, c.want)
			assert.True(t, failed.RolledBack)
			assert.Equal(t, before, listing(t, h.dir))
		})
	}
}

// listing is the names, modes and contents below a directory.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all[path] = info.Mode().String()
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			all[path] += string(data)
			return err
		}
		return nil
	}))
	return all
}

func TestOwnerAndModeAreKeptOrSet(t *testing.T) {
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = 12345, 23456 // only root can give files away
	}
	for _, layout := range layouts() {
		t.Run(string(layout), func(t *testing.T) {
			h, pairs := newHost(t), map[string]pair{"old": newPair(t), "new": newPair(t)}
			h.mustDeploy(t, h.config(layout), pairs["old"], 1)
			require.NoError(t, os.Chown(h.paths.Key, uid, gid))
			require.NoError(t, os.Chmod(h.paths.Key, 0o640))
			h.mustDeploy(t, h.config(layout), pairs["new"], 2)
			requireAccess(t, h.paths.Key, uid, gid, 0o640)

			// A rollback restores them too.
			config := h.config(layout)
			config.Owner, config.Group = strconv.Itoa(os.Geteuid()), strconv.Itoa(os.Getegid())
			config.KeyMode, config.Mode = 0o400, 0o640
			config.Check = shell("exit 1")
			_, err := newTarget(t, config).Deploy(context.Background(), h.task(pairs["old"], 3))
			assert.True(t, requireFailure(t, err, deploy.StageCheck).RolledBack)
			requireAccess(t, h.paths.Key, uid, gid, 0o640)

			config.Check = nil
			assert.True(t, h.mustDeploy(t, config, pairs["new"], 2).Changed, "another mode is a change")
			requireAccess(t, h.paths.Key, os.Geteuid(), os.Getegid(), 0o400)
			requireAccess(t, h.paths.Chain, os.Geteuid(), os.Getegid(), 0o640)
		})
	}
}

func requireAccess(t *testing.T, path string, uid, gid int, mode fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	st := info.Sys().(*syscall.Stat_t)
	assert.Equal(t, []any{uid, gid, mode}, []any{int(st.Uid), int(st.Gid), info.Mode()}, path)
}

func TestModesThatNewRefuses(t *testing.T) {
	for want, config := range map[string]Config{
		"files.key_mode 0644: everybody could use":   {KeyMode: 0o644},
		"files.mode 0666: everybody could change":    {Mode: 0o666},
		"files.mode 0200: the owner must be able":    {Mode: 0o200},
		"only permission bits":                       {Mode: fs.ModeSetuid | 0o644},
		"files.windows_account: only Windows has it": {WindowsAccount: "web"},
	} {
		config.Paths.FullChain = "/x/y"
		_, err := New(config)
		assert.ErrorContains(t, err, want)
	}
}

func TestSymbolicLinkToAFileStays(t *testing.T) {
	h, p := newHost(t), newPair(t)
	end := filepath.Join(filepath.Dir(h.dir), "tls", "real.pem")
	require.NoError(t, os.Mkdir(h.dir, 0o755))
	require.NoError(t, os.Symlink("real.pem", h.paths.Key)) // leads nowhere yet
	for generation := range 2 {
		h.mustDeploy(t, h.config(LayoutFiles), p, uint64(generation+1))
		link, err := os.Readlink(h.paths.Key)
		require.NoError(t, err)
		assert.Equal(t, "real.pem", link)
		data, err := os.ReadFile(end)
		require.NoError(t, err)
		assert.Equal(t, p.contents(t)[kindKey], data)
		p = newPair(t)
	}
}

func TestLinkOfAnotherUserIsNotFollowed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of another user")
	}
	h, victim := newHost(t), filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o600))
	require.NoError(t, os.Mkdir(h.dir, 0o755))
	require.NoError(t, os.Chmod(h.dir, 0o777|fs.ModeSticky))
	require.NoError(t, os.Symlink(victim, h.paths.Key))
	require.NoError(t, os.Lchown(h.paths.Key, 12345, 12345))
	_, err := newTarget(t, h.config(LayoutFiles)).Deploy(context.Background(), h.task(newPair(t), 1))
	require.ErrorContains(t, requireFailure(t, err, deploy.StagePrepare), "another user may have made")

	require.NoError(t, os.Remove(h.paths.Key))
	require.NoError(t, os.Chown(h.dir, 12345, 12345))
	require.NoError(t, os.Chmod(h.dir, 0o755))
	_, err = newTarget(t, h.config(LayoutFiles)).Deploy(context.Background(), h.task(newPair(t), 1))
	require.ErrorContains(t, requireFailure(t, err, deploy.StagePrepare), "belongs to another user")

	config := h.config(LayoutFiles)
	config.AllowUntrustedDirectories = true
	h.mustDeploy(t, config, newPair(t), 1)
	data, err := os.ReadFile(victim)
	require.NoError(t, err)
	assert.Equal(t, "precious", string(data))
}

func TestDirectoryLayoutRefuses(t *testing.T) {
	h, p := newHost(t), newPair(t)
	config := h.config(LayoutDirectory)
	require.NoError(t, os.Mkdir(h.dir, 0o755))
	_, err := newTarget(t, config).Deploy(context.Background(), h.task(p, 1))
	require.ErrorContains(t, requireFailure(t, err, deploy.StagePrepare), "move it away")

	require.NoError(t, os.Remove(h.dir))
	h.mustDeploy(t, config, p, 1)
	stray := filepath.Join(h.dir, "dhparam.pem")
	require.NoError(t, os.WriteFile(stray, nil, 0o644))
	_, err = newTarget(t, config).Deploy(context.Background(), h.task(newPair(t), 2))
	require.ErrorContains(t, requireFailure(t, err, deploy.StagePrepare), "dhparam.pem")
	require.FileExists(t, stray)
}

func TestDirectoryOfAnOperatorIsNotRemoved(t *testing.T) {
	h, p := newHost(t), newPair(t)
	own := filepath.Join(filepath.Dir(h.dir), "releases")
	require.NoError(t, os.Mkdir(own, 0o755))
	require.NoError(t, os.Symlink("releases", h.dir))
	h.mustDeploy(t, h.config(LayoutDirectory), p, 1)
	require.DirExists(t, own)
	require.Equal(t, "new", h.found(t, map[string]pair{"new": p}))
}

func TestVerifyOnDisk(t *testing.T) {
	h, p, other := newHost(t), newPair(t), newPair(t)
	target := newTarget(t, h.config(LayoutFiles))
	assert.False(t, target.Probed())
	require.ErrorIs(t, target.Verify(context.Background(), p.chain[0]), fs.ErrNotExist)
	h.mustDeploy(t, h.config(LayoutFiles), p, 1)
	require.NoError(t, target.Verify(context.Background(), p.chain[0]))
	require.ErrorIs(t, target.Verify(context.Background(), other.chain[0]), pki.ErrKeyMismatch)
	public := newTarget(t, Config{Paths: Paths{FullChain: h.paths.FullChain}})
	require.NoError(t, public.Verify(context.Background(), p.chain[0]))
	require.ErrorContains(t, public.Verify(context.Background(), other.chain[0]), p.fingerprint())

	require.NoError(t, os.WriteFile(h.paths.Key, other.contents(t)[kindKey], 0o600))
	require.ErrorIs(t, target.Verify(context.Background(), p.chain[0]), pki.ErrKeyMismatch)
	require.NoError(t, os.WriteFile(h.paths.Key, []byte("empty"), 0o600))
	require.ErrorContains(t, target.Verify(context.Background(), p.chain[0]), "no private key")
}

// TestEndOfContextInTheCheck: the program does not know of the new files yet, so they go.
func TestEndOfContextInTheCheck(t *testing.T) {
	h, pairs := newHost(t), map[string]pair{"old": newPair(t), "new": newPair(t)}
	h.mustDeploy(t, h.config(LayoutFiles), pairs["old"], 1)
	ctx, cancel := context.WithCancel(context.Background())
	target := newTarget(t, h.config(LayoutFiles))
	target.hook = func(s durable.Step, _ string, done bool) error {
		if s == stepCheck && !done {
			cancel()
		}
		return nil
	}
	_, err := target.Deploy(ctx, h.task(pairs["new"], 2))
	require.ErrorIs(t, err, context.Canceled)
	assert.True(t, requireFailure(t, err, deploy.StageCheck).RolledBack)
	assert.Equal(t, "old", h.found(t, pairs))
	h.requireTidy(t)

	_, err = newTarget(t, h.config(LayoutFiles)).Deploy(ctx, h.task(pairs["new"], 2))
	require.ErrorIs(t, requireFailure(t, err, deploy.StagePrepare), context.Canceled)
}

// TestEndOfContextInTheReload: the new pair stays, and the next call goes on.
func TestEndOfContextInTheReload(t *testing.T) {
	h, pairs := newHost(t), map[string]pair{"old": newPair(t), "new": newPair(t)}
	h.mustDeploy(t, h.config(LayoutFiles), pairs["old"], 1)
	ctx, cancel := context.WithCancel(context.Background())
	target := newTarget(t, h.config(LayoutFiles))
	target.hook = func(s durable.Step, _ string, done bool) error {
		if s == stepReload && !done {
			cancel()
		}
		return nil
	}
	_, err := target.Deploy(ctx, h.task(pairs["new"], 2))
	failed := requireFailure(t, err, deploy.StageReload)
	require.ErrorIs(t, err, context.Canceled)
	assert.False(t, failed.RolledBack)
	assert.Contains(t, failed.Mend, "goes on with it")
	assert.Equal(t, "new", h.found(t, pairs))
	require.NotEmpty(t, h.state)

	assert.True(t, h.mustDeploy(t, h.config(LayoutFiles), pairs["new"], 2).Changed)
	h.requireTidy(t)
}
