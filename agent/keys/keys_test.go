package keys

import (
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/pki"
)

func openDir(t *testing.T) *Dir {
	t.Helper()
	d, err := OpenDir(filepath.Join(t.TempDir(), "keys"))
	require.NoError(t, err)
	return d
}

func TestCreateAndLoad(t *testing.T) {
	d := openDir(t)
	for _, alg := range []pki.KeyAlgorithm{pki.ECDSAP256, pki.ECDSAP384, pki.RSA2048, pki.Ed25519} {
		id, key, err := d.Create(alg)
		require.NoError(t, err, alg)
		loaded, err := d.Load(id)
		require.NoError(t, err, alg)
		same, ok := key.(interface{ Equal(crypto.PrivateKey) bool })
		require.True(t, ok, alg)
		assert.True(t, same.Equal(loaded), alg)
		if runtime.GOOS != "windows" {
			info, err := os.Stat(d.file(id))
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		}
	}
	again, err := OpenDir(d.Path())
	require.NoError(t, err, "a directory that is there is opened")
	assert.Equal(t, d.Path(), again.Path())
}

func TestOpenDirRemovesWhatACrashLeft(t *testing.T) {
	d := openDir(t)
	id, _, err := d.Create(pki.DefaultKeyAlgorithm)
	require.NoError(t, err)
	leftover := filepath.Join(d.Path(), ".certctl-1234.tmp")
	require.NoError(t, os.WriteFile(leftover, nil, 0o600))
	again, err := OpenDir(d.Path())
	require.NoError(t, err)
	assert.NoFileExists(t, leftover)
	_, err = again.Load(id)
	require.NoError(t, err)
}

func TestCreateRefusesUnknownAlgorithm(t *testing.T) {
	d := openDir(t)
	_, _, err := d.Create("dsa-1024")
	require.ErrorContains(t, err, "dsa-1024")
	requireEmpty(t, d)
}

func requireEmpty(t *testing.T, d *Dir) {
	t.Helper()
	entries, err := os.ReadDir(d.path)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// Whatever step fails, the caller hears of it and nothing of the key is left.
func TestCreateFailsCleanlyAtEachStep(t *testing.T) {
	broken := errors.New("the disk is broken")
	for _, step := range []durable.Step{stepCreate, stepRestrict, stepWrite, stepSync, stepClose, stepSyncDir, stepReadBack} {
		for _, after := range []bool{false, true} {
			d := openDir(t)
			reached := false
			d.hook = func(s durable.Step, _ string, done bool) error {
				if s == step && done == after {
					reached = true
					return broken
				}
				return nil
			}
			id, key, err := d.Create(pki.ECDSAP256)
			require.True(t, reached, step)
			require.ErrorIs(t, err, broken, step)
			assert.Empty(t, id, step)
			assert.Nil(t, key, step)
			requireEmpty(t, d)
		}
	}
}

func TestCreateFindsWhatTheDiskChanged(t *testing.T) {
	for name, change := range map[string]func(text []byte) []byte{
		"cut short": func(text []byte) []byte { return text[:len(text)/2] },
		"one octet": func(text []byte) []byte { text[len(text)/2]++; return text },
		"empty":     func([]byte) []byte { return nil },
	} {
		d := openDir(t)
		d.hook = func(step durable.Step, _ string, done bool) error {
			if step != stepReadBack || done {
				return nil
			}
			files, err := filepath.Glob(filepath.Join(d.path, "*"))
			require.NoError(t, err)
			require.Len(t, files, 1)
			text, err := os.ReadFile(files[0])
			require.NoError(t, err)
			return os.WriteFile(files[0], change(text), 0o600)
		}
		_, _, err := d.Create(pki.ECDSAP256)
		var bad *Error
		require.ErrorAs(t, err, &bad, name)
		assert.Equal(t, "check the disk", bad.Mend, name)
		requireEmpty(t, d)
	}
}

func TestLoadRefuses(t *testing.T) {
	d := openDir(t)
	id, _, err := d.Create(pki.ECDSAP256)
	require.NoError(t, err)
	good, err := os.ReadFile(d.file(id))
	require.NoError(t, err)

	for _, bad := range []string{"", "..", "../../etc/passwd", strings.Repeat("a", 31), strings.Repeat("A", 32), strings.Repeat("a", 31) + "/", strings.Repeat("b", 32)} {
		_, err := d.Load(bad)
		require.ErrorIs(t, err, ErrNotFound, "%q", bad)
	}
	for _, bad := range []string{"", "../x", strings.Repeat("a", 31) + "/"} {
		require.ErrorIs(t, d.Remove(bad), ErrNotFound, "%q", bad)
	}

	for name, content := range map[string][]byte{
		"empty": nil, "no PEM": []byte("hello"), "cut": good[:len(good)-40], "too long": make([]byte, maxFile+1),
	} {
		require.NoError(t, os.WriteFile(d.file(id), content, 0o600))
		_, err := d.Load(id)
		var refused *Error
		require.ErrorAs(t, err, &refused, name)
		assert.Contains(t, refused.Error(), d.file(id), name)
		assert.NotEmpty(t, refused.Mend, name)
		if len(content) > 60 {
			assert.NotContains(t, err.Error(), string(content[40:60]), "an error must not repeat the key")
		}
	}

	require.NoError(t, os.Remove(d.file(id)))
	require.NoError(t, os.Mkdir(d.file(id), 0o700))
	_, err = d.Load(id)
	require.ErrorContains(t, err, "is not a regular file")
}

func TestOthersMustNotReadKeys(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Log("access on Windows is by DACL, which durable's tests cover")
		return
	}
	d := openDir(t)
	id, _, err := d.Create(pki.ECDSAP256)
	require.NoError(t, err)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o610} {
		require.NoError(t, os.Chmod(d.file(id), mode))
		_, err = d.Load(id)
		require.ErrorContains(t, err, "is open to other users")
		require.ErrorContains(t, err, "chmod 0600 "+d.file(id))
	}
	require.NoError(t, os.Chmod(d.file(id), 0o600))
	_, err = d.Load(id)
	require.NoError(t, err)

	require.NoError(t, os.Chmod(d.path, 0o750))
	_, err = OpenDir(d.path)
	var private *durable.PrivateDirError
	require.ErrorAs(t, err, &private)
	assert.Contains(t, private.Mend, "chmod 0700")

	if os.Geteuid() == 0 {
		require.NoError(t, os.Chmod(d.path, 0o700))
		require.NoError(t, os.Chown(d.file(id), 12345, -1))
		_, err = d.Load(id)
		require.ErrorContains(t, err, "belongs to user id 12345")
	}
}

func TestRemove(t *testing.T) {
	d := openDir(t)
	id, _, err := d.Create(pki.Ed25519)
	require.NoError(t, err)
	require.NoError(t, d.Remove(id))
	require.NoError(t, d.Remove(id), "it need not be there")
	_, err = d.Load(id)
	require.ErrorIs(t, err, ErrNotFound)
	requireEmpty(t, d)
}

func TestSweep(t *testing.T) {
	d := openDir(t)
	now := time.Now()
	age := func(path string, by time.Duration) {
		require.NoError(t, os.Chtimes(path, now.Add(-by), now.Add(-by)))
	}
	create := func(by time.Duration) string {
		id, _, err := d.Create(pki.Ed25519)
		require.NoError(t, err)
		age(d.file(id), by)
		return id
	}
	used, orphan, young, future := create(48*time.Hour), create(48*time.Hour), create(time.Hour), create(-time.Hour)
	foreign := filepath.Join(d.path, "notes.txt")
	require.NoError(t, os.WriteFile(foreign, []byte("mine"), 0o600))
	age(foreign, 48*time.Hour)

	removed, err := d.Sweep(map[string]bool{used: true}, 24*time.Hour, now)
	require.NoError(t, err)
	assert.Equal(t, []string{orphan}, removed)
	for _, id := range []string{used, young, future} {
		_, err := d.Load(id)
		require.NoError(t, err)
	}
	assert.FileExists(t, foreign)

	require.NoError(t, os.RemoveAll(d.path))
	_, err = d.Sweep(nil, 0, now)
	require.ErrorContains(t, err, "key directory")
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte{})
	d, err := OpenDir(filepath.Join(f.TempDir(), "keys"))
	require.NoError(f, err)
	id := strings.Repeat("0", 32)
	f.Fuzz(func(t *testing.T, text []byte) {
		require.NoError(t, os.WriteFile(d.file(id), text, 0o600))
		key, err := d.Load(id)
		if (key == nil) == (err == nil) {
			t.Fatalf("key %v, error %v", key, err)
		}
	})
}

// A new key is synced, and then its name; a removed one stays removed.
func TestWhatIsSynced(t *testing.T) {
	d, err := OpenDir(filepath.Join(t.TempDir(), "keys"))
	require.NoError(t, err)
	var synced []string
	t.Cleanup(durable.WatchSyncs(d.Path(), func(path string) func() {
		return func() { synced = append(synced, path) }
	}))
	id, _, err := d.Create(pki.DefaultKeyAlgorithm)
	require.NoError(t, err)
	want := []string{d.file(id)}
	if runtime.GOOS != "windows" { // has no sync of a directory
		want = append(want, d.Path())
	}
	assert.Equal(t, want, synced)
	synced = nil
	require.NoError(t, d.Remove(id))
	assert.Equal(t, want[1:], append([]string{}, synced...))
}
