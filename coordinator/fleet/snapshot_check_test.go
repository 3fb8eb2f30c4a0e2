package fleet_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

func TestASnapshotIsCheckedWithoutBeingKept(t *testing.T) {
	b := newBench(t)
	b.enroll("agent")
	good := snapshot(t, b.state)
	index, err := fleet.CheckSnapshot(bytes.NewReader(good))
	require.NoError(t, err)
	assert.Equal(t, b.state.Index(), index)
	assert.Equal(t, b.view().Rows(fleet.TableAgents), b.state.Snapshot().View().Rows(fleet.TableAgents))
	for at := range good {
		flipped := bytes.Clone(good)
		flipped[at] ^= 0x10
		_, err := fleet.CheckSnapshot(bytes.NewReader(flipped))
		require.Error(t, err, "a flipped bit at %d", at)
		_, err = fleet.CheckSnapshot(bytes.NewReader(good[:at]))
		require.ErrorIs(t, err, fleet.ErrSnapshotDamaged, "an end at %d", at)
	}
	_, err = fleet.CheckSnapshot(bytes.NewReader(append(good, 0)))
	require.ErrorIs(t, err, fleet.ErrSnapshotDamaged)
}
