package backup

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/durable"
)

// requireTaken looks, and wants a snapshot of the state as it is, dated now, that
// stays the newest until an interval has passed.
func (k *keeperTest) requireTaken(files int) {
	k.t.Helper()
	k.look()
	status := k.Status()
	require.NoError(k.t, status.Err)
	require.Equal(k.t, k.now, status.Time)
	require.Equal(k.t, k.node.state.Index(), status.Index)
	require.FileExists(k.t, status.Newest)
	taken := k.files()
	require.Len(k.t, taken, files)
	k.now = k.now.Add(59 * time.Minute)
	k.node.change()
	k.look()
	require.Equal(k.t, taken, k.files(), "none is due yet")
	require.Equal(k.t, status.Newest, k.Status().Newest)
	k.now = k.now.Add(time.Minute)
}

func TestAFileOfTheFutureIsTheOldest(t *testing.T) {
	for _, keep := range []int{1, 3} {
		// The short one passes while the file is still kept.
		for _, ahead := range []time.Duration{90 * time.Minute, 48 * time.Hour} {
			for _, changed := range []bool{true, false} {
				t.Run(fmt.Sprintf("keep %d, ahead %v, changed %v", keep, ahead, changed), func(t *testing.T) {
					k := newKeeper(t)
					k.keep = keep
					k.now = k.now.Add(ahead)
					k.restart()
					k.look()
					future := k.Status().Newest
					k.now = k.now.Add(-ahead)
					k.restart()
					if changed {
						k.node.change()
					}
					for n := 1; n <= 5; n++ {
						k.requireTaken(min(n+1, keep))
						if n < keep {
							require.FileExists(t, future, "it is as good as others")
						} else {
							require.NoFileExists(t, future, "it is the first that goes")
						}
					}
				})
			}
		}
	}
}

// All that is there is of the future when the clock is behind.
func TestFilesOfTheFutureGoByTheirIndex(t *testing.T) {
	k := newKeeper(t)
	for range 3 {
		k.later()
	}
	before := k.files()
	k.now = time.Date(1970, 1, 1, 0, 1, 0, 0, time.UTC)
	k.node.change()
	k.requireTaken(3)
	assert.Equal(t, before[1:], k.files()[:2])
	k.now = time.Date(2026, 3, 1, 16, 0, 0, 0, time.UTC)
	k.requireTaken(3)
	assert.Equal(t, before[2:], k.files()[:1])
}

// A snapshot that was restored to a new cluster goes on with lower indexes than
// those of files that are there.
func TestALowerIndexAfterARestoreIsNewer(t *testing.T) {
	for _, keep := range []int{1, 3} {
		t.Run(fmt.Sprintf("keep %d", keep), func(t *testing.T) {
			k := newKeeper(t)
			k.keep = keep
			k.restart()
			for range 20 {
				k.node.change()
			}
			k.look()
			old := k.Status().Newest
			k.now = k.now.Add(time.Hour)
			k.node = newNode(t)
			k.restart()
			for n := 1; n <= 4; n++ {
				k.requireTaken(min(n+1, keep))
			}
			assert.NoFileExists(t, old)
		})
	}
}

func TestWhatWasJustWrittenStaysWhenTheClockIsSetBack(t *testing.T) {
	k := newKeeper(t)
	k.keep = 1
	k.restart()
	k.look()
	k.now = k.now.Add(time.Hour)
	k.node.change()
	index := k.node.state.Index()
	k.hook = func(step durable.Step, _ string, done bool) error {
		if step == "durable: sync" && done {
			k.now = k.now.Add(-time.Minute)
		}
		return nil
	}
	path, err := k.Take()
	require.NoError(t, err)
	assert.Equal(t, []string{filepath.Base(path)}, k.files())
	assert.Equal(t, index, k.Status().Index)
	k.hook = nil
	k.node.change()
	k.requireTaken(1)
}
