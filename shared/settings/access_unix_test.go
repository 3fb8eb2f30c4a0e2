//go:build !windows

package settings_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/settings"
)

// guarded loads a file as the daemons do.
func guarded(path string) error {
	_, err := settings.Load(&daemon{}, settings.Options{File: path, Guarded: true})
	return err
}

func TestFileThatOthersMayWrite(t *testing.T) {
	path := write(t, "server: {url: u, token: secret}\n")
	for _, mode := range []os.FileMode{0o400, 0o600, 0o644, 0o444} {
		require.NoError(t, os.Chmod(path, mode))
		require.NoError(t, guarded(path), "mode %o", mode)
	}
	for _, mode := range []os.FileMode{0o666, 0o602, 0o660, 0o664} {
		require.NoError(t, os.Chmod(path, mode))
		require.EqualError(t, guarded(path), fmt.Sprintf("%[1]s: the configuration file is not used: %[1]s may be written by others "+
			"(mode %04[2]o), who could have this program do anything; run \"chmod go-w %[1]s\", and look at what was written", path, mode))
		_, err := settings.Load(&daemon{}, settings.Options{File: path})
		require.NoError(t, err, "a file that nobody acts upon may be anybody's")
	}
}

func TestFileInADirectoryThatOthersMayWrite(t *testing.T) {
	path := write(t, "server: {url: u, token: secret}\n")
	dir := filepath.Dir(path)
	require.NoError(t, os.Chmod(dir, 0o777))
	require.ErrorContains(t, guarded(path), fmt.Sprintf("run \"chmod go-w %s\"", dir))
	require.NoError(t, os.Chmod(dir, 0o777|os.ModeSticky))
	require.NoError(t, guarded(path), "nobody replaces the file of somebody else")
	require.NoError(t, os.Chmod(dir, 0o775))
	require.NoError(t, guarded(path), "the process's own group")

	// A link is as good as the directories that it and what it leads to are in.
	link := filepath.Join(t.TempDir(), "link.yaml")
	require.NoError(t, os.Symlink(path, link))
	require.NoError(t, guarded(link))
	require.NoError(t, os.Chmod(dir, 0o777))
	require.ErrorContains(t, guarded(link), "chmod go-w "+dir)
	require.NoError(t, os.Chmod(dir, 0o700))
	require.NoError(t, os.Chmod(filepath.Dir(link), 0o777))
	require.ErrorContains(t, guarded(link), "chmod go-w "+filepath.Dir(link))
}

func TestFileOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	path := write(t, "server: {url: u, token: secret}\n")
	dir := filepath.Dir(path)
	require.NoError(t, os.Chmod(path, 0o644))
	require.NoError(t, os.Chown(path, 12345, -1))
	require.ErrorContains(t, guarded(path), fmt.Sprintf("%[1]s belongs to user id 12345, who could have this program, "+
		"which runs as user id 0, do anything; run \"chown 0 %[1]s\"", path))
	require.NoError(t, os.Chown(path, 0, -1))
	require.NoError(t, os.Chown(dir, 12345, -1))
	require.ErrorContains(t, guarded(path), dir+" belongs to user id 12345")
	require.NoError(t, os.Chown(dir, 0, 12345))
	require.NoError(t, os.Chmod(dir, 0o775))
	require.ErrorContains(t, guarded(path), "chmod go-w "+dir, "the group is another one")
}

func TestSecretFileThatOthersMayRead(t *testing.T) {
	path := write(t, "server: {url: u, token_file: token}\n")
	require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755)) // #nosec G302 -- others reach it
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o755))               // #nosec G302
	secret := filepath.Join(filepath.Dir(path), "token")
	require.NoError(t, os.WriteFile(secret, []byte("secret\n"), 0o600))
	load := func() error {
		_, err := settings.Load(&daemon{}, settings.Options{File: path})
		return err
	}
	var loaded daemon
	_, err := settings.Load(&loaded, settings.Options{File: path})
	require.NoError(t, err)
	for _, mode := range []os.FileMode{0o604, 0o644, 0o620, 0o602, 0o666, 0o601} {
		require.NoError(t, os.Chmod(secret, mode))
		require.ErrorContains(t, load(), fmt.Sprintf("server.token_file: the secret file is not used: %[1]s is open to other users "+
			"(mode %04[2]o); run \"chmod 0600 %[1]s\", and replace the secret", secret, mode))
		_, err := loaded.Server.Token.Read()
		require.ErrorContains(t, err, "the secret file is not used", "nor is it when it is read again")
		_, err = settings.Load(&daemon{}, settings.Options{Env: []string{"CERTCTL_T_TOKEN_FILE=" + secret}})
		require.ErrorContains(t, err, "chmod 0600 "+secret)
	}
	require.NoError(t, os.Chmod(secret, 0o640))
	if os.Geteuid() != 0 {
		assert.ErrorContains(t, load(), "is open to other users (mode 0640)")
		return
	}
	require.NoError(t, load(), "root gave it to a group")
	require.NoError(t, os.Chown(secret, 12345, -1))
	assert.ErrorContains(t, load(), fmt.Sprintf("run \"chown 0 %[1]s\" and \"chmod 0600 %[1]s\"", secret))
}

// secretIn loads a secret through a symbolic link that others reach, as Kubernetes makes them.
func secretIn(t *testing.T, path string) error {
	t.Helper()
	dir := filepath.Dir(filepath.Dir(write(t, "")))
	require.NoError(t, os.Chmod(dir, 0o755)) // #nosec G302 -- others reach it
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(path, link))
	defer os.Remove(link)
	_, err := settings.Load(&daemon{}, settings.Options{Env: []string{"CERTCTL_T_URL=u", "CERTCTL_T_TOKEN_FILE=" + link}})
	return err
}

// The mode of a file says nothing where nobody else gets to it.
func TestSecretFileOutOfReach(t *testing.T) {
	outer := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(outer), 0o755)) // #nosec G302 -- others reach it
	inner := filepath.Join(outer, "a", "b")
	require.NoError(t, os.MkdirAll(inner, 0o755)) // #nosec G301
	secret := filepath.Join(inner, "token")
	require.NoError(t, os.WriteFile(secret, []byte("secret\n"), 0o600))
	check := func(dir, file os.FileMode) error {
		require.NoError(t, os.Chmod(outer, dir))
		require.NoError(t, os.Chmod(secret, file))
		return secretIn(t, secret)
	}
	for _, dir := range []os.FileMode{0o700, 0o744, 0o766} { // a list of names opens nothing
		for _, file := range []os.FileMode{0o444, 0o644, 0o666} {
			require.NoError(t, check(dir, file), "%o %o", dir, file)
		}
	}
	for _, dir := range []os.FileMode{0o755, 0o711, 0o701} {
		for _, file := range []os.FileMode{0o444, 0o644, 0o666} {
			require.ErrorContains(t, check(dir, file), "is open to other users", "%o %o", dir, file)
		}
	}
	if os.Geteuid() != 0 {
		require.ErrorContains(t, check(0o750, 0o644), "is open to other users", "the group is not root's choice")
		return
	}
	require.NoError(t, check(0o750, 0o644), "root gave the directory to a group")
	for _, file := range []os.FileMode{0o664, 0o646, 0o606} {
		require.ErrorContains(t, check(0o750, file), "is open to other users", "%o: who is in the directory's group may write it", file)
	}
	require.NoError(t, os.Chown(outer, 12345, -1))
	require.ErrorContains(t, check(0o700, 0o644), "is open to other users", "the directory is somebody else's")
	require.ErrorContains(t, check(0o750, 0o644), "is open to other users", "the directory is somebody else's")
}

// What systemd hands out is for the service alone, whatever its mode.
func TestCredentialsOfSystemd(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // #nosec G302 -- others reach it
	require.NoError(t, os.Chmod(dir, 0o755))               // #nosec G302
	secret := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(secret, []byte("secret\n"), 0o600))
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for _, mode := range []os.FileMode{0o400, 0o440, 0o444} {
		require.NoError(t, os.Chmod(secret, mode))
		require.NoError(t, secretIn(t, secret), "%o", mode)
	}
	require.NoError(t, os.Chmod(secret, 0o464))
	require.ErrorContains(t, secretIn(t, secret), "is open to other users", "it may be written")
	require.NoError(t, os.Chmod(secret, 0o444)) // #nosec G302
	beside := strings.TrimSuffix(dir, "1")
	require.NoError(t, os.MkdirAll(beside, 0o755)) // #nosec G301 -- its name is the beginning of the other's
	for _, other := range []string{"", "/", filepath.Join(dir, "none"), ".", beside} {
		t.Setenv("CREDENTIALS_DIRECTORY", other)
		require.ErrorContains(t, secretIn(t, secret), "is open to other users", other)
	}
}
