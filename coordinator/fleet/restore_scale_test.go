//go:build linux

package fleet_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

// TestScaleOfARestore says what a restore through the log takes for the fleet of
// TestScale.
func TestScaleOfARestore(t *testing.T) {
	if os.Getenv("CERTCTL_SOAK") == "" {
		t.Skip("takes minutes and gigabytes: runs with CERTCTL_SOAK set")
	}
	f := newLargeFleet(t, number(t, "CERTCTL_SCALE_AGENTS", 100_000), 10)
	state := f.state
	f.Fill()
	before := heap()
	t.Logf("%d agents, %d certificates: %.0f MiB of heap", f.Agents, f.Agents*f.Each, mib(before))

	began := now()
	var pieces [][]byte
	size := uint64(0)
	packer, err := fleet.NewRestorePacker(func(piece []byte) error {
		pieces, size = append(pieces, bytes.Clone(piece)), size+uint64(len(piece))
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, state.Snapshot().Persist(packer))
	require.NoError(t, packer.Close())
	t.Logf("packed in %v: %d pieces of %.0f MiB together", began.took(), len(pieces), mib(size))

	apply := func(payload fleet.Payload) {
		command, err := fleet.NewCommand(testTime, payload)
		require.NoError(t, err)
		entry, err := fleet.EncodeEntry([]fleet.Command{command})
		require.NoError(t, err)
		results, _, err := state.Apply(state.Index()+1, entry)
		require.NoError(t, err)
		require.NoError(t, results[0].Err())
	}
	began = now()
	for i, piece := range pieces {
		apply(fleet.StageRestore{ID: "r", Piece: uint32(i), Data: piece})
	}
	t.Logf("staged in %v; %.0f MiB of heap then", began.took(), mib(heap()))
	began = now()
	apply(fleet.ApplyRestore{ID: "r", Pieces: uint32(len(pieces))})
	t.Logf("the entry that restores is applied in %v", began.took())
	pieces = nil
	t.Logf("%.0f MiB of heap then", mib(heap()))
	require.Equal(t, f.Agents*f.Each, state.View().Rows(fleet.TableCertificates))
}
