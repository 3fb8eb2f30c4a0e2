package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/snapshotfile"
)

func TestSnapshotCommands(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	c.Agent("kept", "kept.example.com", nil)
	dir := t.TempDir()
	path := filepath.Join(dir, "monday.snapshot")
	saved := reads[savedSnapshot](p, "snapshot", "save", path)
	assert.Equal(t, c.CA.ClusterID(), saved.ClusterID)
	assert.Equal(t, 1, saved.Rows["agents"])
	assert.False(t, saved.Encrypted)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, saved.Size, info.Size())
	if runtime.GOOS != "windows" {
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
	assert.Contains(t, p.fails(exitFailed, "snapshot", "save", path), "--force")
	p.does("snapshot", "save", path, "--force")
	inspected := reads[savedSnapshot](p, "snapshot", "inspect", path)
	assert.Equal(t, 1, inspected.Rows["agents"])
	text := p.does("snapshot", "inspect", path)
	assert.Contains(t, text, c.CA.ClusterID())
	assert.Contains(t, text, "api_tokens")

	c.Agent("lost", "lost.example.com", nil)
	dry := reads[resource.Restored](p, "snapshot", "restore", path, "--dry-run")
	assert.True(t, dry.DryRun)
	assert.Positive(t, dry.LostChanges)
	text = p.does("snapshot", "restore", path, "--dry-run")
	assert.Contains(t, text, "changes since then")
	assert.Regexp(t, `(?m)^agents +1 +0 +0 +1$`, text, "one vanishes, and one stays")
	assert.Contains(t, text, "\nagents that vanish:\n  lost  lost.example.com\n")
	assert.Contains(t, text, "opens the private keys in it")
	assert.Contains(t, text, "of the audit trail: they stay in it")
	stdout, stderr, status := p.run("snapshot", "restore", path)
	assert.Equal(t, exitFailed, status)
	assert.Contains(t, stdout, "changes since then", "what would be lost is told before anybody is asked")
	assert.Contains(t, stderr, "--yes")
	_, ok := c.State().View().Agent("lost")
	require.True(t, ok)

	done := reads[resource.Restored](p, "snapshot", "restore", path, "--yes")
	assert.False(t, done.DryRun)
	_, ok = c.State().View().Agent("lost")
	assert.False(t, ok)
	p.does("agents", "show", "kept")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing else is left behind")
}

// A person sees the first few by name, and scripts all of them.
func TestManyRecordsThatVanish(t *testing.T) {
	var list resource.RestoredRecords
	for i := range 1200 {
		if list.Count++; i < resource.MaxPreviewed {
			list.Items = append(list.Items, resource.RestoredRecord{ID: strconv.Itoa(i), Name: "a\x1b[31m"})
		}
	}
	var out bytes.Buffer
	require.NoError(t, showRecords(&out, "agents that vanish", list))
	assert.Contains(t, out.String(), "\n  9  a [31m\n  and 1190 more (--output json)\n")
	assert.NotContains(t, out.String(), "\x1b")
}

// What would be refused is shown, and nobody is asked.
func TestARestoreThatWouldBeRefused(t *testing.T) {
	c, other := apitest.Start(t), apitest.Start(t)
	path := filepath.Join(t.TempDir(), "other.snapshot")
	logIn(t, other).does("snapshot", "save", path)
	p := logIn(t, c)
	for _, flag := range []string{"--dry-run", "--yes"} {
		stdout, stderr, status := p.run("snapshot", "restore", path, flag)
		assert.Equal(t, exitFailed, status)
		assert.Contains(t, stdout, "DOES NOT OPEN the private keys in it")
		assert.Contains(t, stdout, "everything that this cluster has")
		assert.Contains(t, stderr, "it would be refused")
		assert.Contains(t, stderr, "CERTCTL_CA_SEAL_KEY_FILE")
	}
}

func TestEncryptedSnapshots(t *testing.T) {
	scryptWork = 10
	t.Cleanup(func() { scryptWork = 18 })
	c := apitest.Start(t)
	p := logIn(t, c)
	dir := t.TempDir()
	in := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	passphrase, wrong := in("passphrase", "correct horse battery\n"), in("wrong", "another passphrase\n")
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	other, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	key, otherKey := in("key", "# a comment\n"+identity.String()+"\n"), in("other", other.String()+"\n")

	byPassphrase, byKey := filepath.Join(dir, "a.age"), filepath.Join(dir, "b.age")
	assert.True(t, reads[savedSnapshot](p, "snapshot", "save", byPassphrase, "--passphrase-file", passphrase).Encrypted)
	assert.True(t, reads[savedSnapshot](p, "snapshot", "save", byKey, "--encrypt-to", identity.Recipient().String(), "--encrypt-to", identity.Recipient().String()).Encrypted)
	for path, open := range map[string][]string{byPassphrase: {"--passphrase-file", passphrase}, byKey: {"--identity-file", key}} {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.NotContains(t, string(content), c.CA.ClusterID())
		complaint := p.fails(exitFailed, "snapshot", "inspect", path)
		assert.Contains(t, complaint, "encrypted")
		inspected := reads[savedSnapshot](p, append([]string{"snapshot", "inspect", path}, open...)...)
		assert.Equal(t, c.CA.ClusterID(), inspected.ClusterID)
		assert.True(t, inspected.Encrypted)
		p.does(append([]string{"snapshot", "restore", path, "--yes", "--output", "json"}, open...)...)
		damaged := bytes.Clone(content)
		damaged[len(damaged)-20] ^= 1
		broken := in("broken.age", string(damaged))
		assert.Contains(t, p.fails(exitFailed, append([]string{"snapshot", "inspect", broken}, open...)...), "damaged")
		cut := in("cut.age", string(content[:len(content)-20]))
		p.fails(exitFailed, append([]string{"snapshot", "inspect", cut}, open...)...)
	}
	assert.Contains(t, p.fails(exitFailed, "snapshot", "inspect", byPassphrase, "--passphrase-file", wrong), "another passphrase")
	assert.Contains(t, p.fails(exitFailed, "snapshot", "inspect", byKey, "--identity-file", otherKey), "somebody else")
	complaint := p.fails(exitFailed, "snapshot", "inspect", byKey, "--identity-file", in("garbage", "AGE-SECRET-KEY-1SECRET"))
	assert.NotContains(t, complaint, "SECRET-KEY-1SECRET")
	assert.Contains(t, p.fails(exitFailed, "snapshot", "save", filepath.Join(dir, "c"), "--passphrase-file", in("short", "short")), "too short")
	assert.Contains(t, p.fails(exitFailed, "snapshot", "save", filepath.Join(dir, "c"), "--encrypt-to", "age1nobody"), "age-keygen")
	assert.Contains(t, p.fails(exitFailed, "snapshot", "save", filepath.Join(dir, "c"), "--passphrase"), "--passphrase-file", "nobody is there to ask")
	assert.NoFileExists(t, filepath.Join(dir, "c"))

	// The text form is read too.
	content, err := os.ReadFile(byKey)
	require.NoError(t, err)
	var text bytes.Buffer
	w := armor.NewWriter(&text)
	_, err = w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	armoured := in("armoured.age", text.String())
	assert.Equal(t, c.CA.ClusterID(), reads[savedSnapshot](p, "snapshot", "inspect", armoured, "--identity-file", key).ClusterID)
}

func TestASnapshotThatIsNotWhole(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	p.does("snapshot", "save", path)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, text := range map[string]string{"cut short": string(content[:len(content)-1]), "not a snapshot": "hello", "damaged": string(content[:len(content)-40]) + "x" + string(content[len(content)-39:])} {
		bad := filepath.Join(dir, "bad")
		require.NoError(t, os.WriteFile(bad, []byte(text), 0o600))
		for _, verb := range []string{"inspect", "restore"} {
			assert.Contains(t, p.fails(exitFailed, "snapshot", verb, bad), name)
		}
	}
	p.fails(exitFailed, "snapshot", "inspect", filepath.Join(dir, "none"))
	p.fails(exitFailed, "snapshot", "save", filepath.Join(dir, "none", "file"))
}

// A download that ends too early is not whole, however it ends.
func TestADownloadThatEndsEarlyIsNoSnapshot(t *testing.T) {
	var whole bytes.Buffer
	_, err := snapshotfile.Write(&whole, snapshotfile.Header{NodeID: "n", Time: time.Unix(1, 0)}, func(w io.Writer) error {
		_, err := w.Write(bytes.Repeat([]byte("x"), 1000))
		return err
	})
	require.NoError(t, err)
	for length := range whole.Len() {
		_, err := checkedCopy(io.Discard, func(w io.Writer) error {
			_, err := w.Write(whole.Bytes()[:length])
			return err
		})
		require.ErrorIs(t, err, snapshotfile.ErrCutShort)
	}
	_, err = checkedCopy(io.Discard, func(w io.Writer) error {
		_, _ = w.Write(whole.Bytes()[:10])
		return io.ErrNoProgress
	})
	require.ErrorIs(t, err, io.ErrNoProgress, "why it ended is told")
	_, err = checkedCopy(io.Discard, func(w io.Writer) error {
		_, err := w.Write(whole.Bytes())
		return err
	})
	require.NoError(t, err)
}
