package snapshotfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/snapshotfile"
)

func header() snapshotfile.Header {
	return snapshotfile.Header{
		ClusterID: "0123456789abcdef", NodeID: "node-a", Index: 4711, Term: 3,
		Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Version: "v1.2.3", Level: 2,
		SealKeys: []string{"00112233"}, Rows: map[string]int{"agents": 2},
	}
}

func write(t testing.TB, content []byte) []byte {
	t.Helper()
	var file bytes.Buffer
	written, err := snapshotfile.Write(&file, header(), func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
	require.NoError(t, err)
	require.EqualValues(t, file.Len(), written.Size)
	require.EqualValues(t, len(content), written.Content)
	return file.Bytes()
}

func incompressible(n int) []byte {
	random := rand.New(rand.NewPCG(1, 2))
	content := make([]byte, n)
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	return content
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, size := range []int{0, 1, 256 << 10, 3<<20 + 5} {
		content := incompressible(size)
		file := write(t, content)
		// However the file comes in.
		for _, r := range []io.Reader{bytes.NewReader(file), iotest.OneByteReader(bytes.NewReader(file)), iotest.DataErrReader(bytes.NewReader(file))} {
			in, err := snapshotfile.Open(r)
			require.NoError(t, err)
			assert.Equal(t, header(), in.Header)
			_, whole := in.Summary()
			assert.False(t, whole, "nothing is proved yet")
			got, err := io.ReadAll(in)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(content, got))
			summary, whole := in.Summary()
			assert.True(t, whole)
			assert.EqualValues(t, len(file), summary.Size)
			if size > 1<<20 {
				break
			}
		}
	}
}

// Wherever a file ends too early, it says so.
func TestACutFileIsToldFromADamagedOne(t *testing.T) {
	file := write(t, bytes.Repeat([]byte("the state "), 100))
	for length := range len(file) {
		_, err := snapshotfile.Check(bytes.NewReader(file[:length]))
		require.ErrorIs(t, err, snapshotfile.ErrCutShort, "%d of %d octets", length, len(file))
	}
	for at := range file {
		damaged := bytes.Clone(file)
		damaged[at] ^= 0x20
		_, err := snapshotfile.Check(bytes.NewReader(damaged))
		require.Error(t, err, "octet %d", at)
		known := false
		for _, reason := range []error{snapshotfile.ErrDamaged, snapshotfile.ErrForeign, snapshotfile.ErrCutShort, snapshotfile.ErrNewer} {
			known = known || errors.Is(err, reason)
		}
		require.True(t, known, "octet %d: %v", at, err)
	}
	_, err := snapshotfile.Check(bytes.NewReader(append(bytes.Clone(file), 'x')))
	require.ErrorIs(t, err, snapshotfile.ErrDamaged)
}

func TestOtherFilesAreNamed(t *testing.T) {
	file := write(t, []byte("content"))
	later := bytes.Clone(file)
	binary.BigEndian.PutUint32(later[len("certctl snapshot\n"):], 2)
	for text, want := range map[string]error{
		"":                                   snapshotfile.ErrCutShort,
		"certctl fleet\n":                    snapshotfile.ErrForeign,
		"age-encryption.org/v1\n-> X25519 ":  snapshotfile.ErrEncrypted,
		"-----BEGIN AGE ENCRYPTED FILE-----": snapshotfile.ErrEncrypted,
		strings.Repeat("x", 1000):            snapshotfile.ErrForeign,
		string(later):                        snapshotfile.ErrNewer,
	} {
		_, err := snapshotfile.Check(strings.NewReader(text))
		assert.ErrorIs(t, err, want, "%.30q", text)
	}
	broken := errors.New("the disk is gone")
	_, err := snapshotfile.Check(io.MultiReader(bytes.NewReader(file[:len(file)-5]), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken, "a file that cannot be read is not called damaged")
	assert.NotErrorIs(t, err, snapshotfile.ErrDamaged)
	assert.NotErrorIs(t, err, snapshotfile.ErrCutShort)
}

func TestAWriterThatFailsLeavesNothingWhole(t *testing.T) {
	var file bytes.Buffer
	failure := errors.New("the table cannot be read")
	_, err := snapshotfile.Write(&file, header(), func(w io.Writer) error {
		_, _ = w.Write([]byte("half"))
		return failure
	})
	require.ErrorIs(t, err, failure)
	_, err = snapshotfile.Check(&file)
	require.ErrorIs(t, err, snapshotfile.ErrCutShort)
}

func FuzzOpen(f *testing.F) {
	f.Add(write(f, []byte("content")))
	f.Add(write(f, bytes.Repeat([]byte("x"), 300<<10)))
	f.Add([]byte("certctl snapshot\n\x00\x00\x00\x01\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := snapshotfile.Open(bytes.NewReader(data))
		if err != nil {
			return
		}
		content, err := io.ReadAll(io.LimitReader(in, 4<<20))
		if err != nil || len(content) == 4<<20 {
			return
		}
		summary, whole := in.Summary()
		require.True(t, whole)
		require.EqualValues(t, len(data), summary.Size, "all of it was read")
		var again bytes.Buffer
		_, err = snapshotfile.Write(&again, in.Header, func(w io.Writer) error { _, err := w.Write(content); return err })
		require.NoError(t, err)
		_, err = snapshotfile.Check(&again)
		require.NoError(t, err)
	})
}
