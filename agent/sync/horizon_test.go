package sync

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// The coordinator is told of a horizon only while it is true: with a certificate
// that is not safe now there is no moment ahead, and it learns how many these are.
func TestReportedHorizon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.enrol()
		expires := func(name string, at time.Time) {
			require.NoError(t, h.store.Update(name, func(tx *store.CertificateTx) error {
				tx.Record.Issuer, tx.Record.Current = "le", &store.Generation{Number: 1, KeyAlgorithm: pki.DefaultKeyAlgorithm, NotAfter: at}
				return nil
			}))
		}
		// reported is what the coordinator was last told.
		reported := func() (host wire.HostReport) {
			h.coord.Change(func() { host = h.coord.AgentLocked(h.agentID).Host })
			return host
		}
		end := time.Now().Add(3 * time.Hour).UTC()
		expires("good", end)
		h.start()
		h.pass(20 * time.Minute)
		host := reported()
		require.NotNil(t, host.SafeUntil)
		assert.True(t, end.Equal(*host.SafeUntil))
		assert.Zero(t, host.NotSafe)

		h.certificate("never", "le")
		h.pass(20 * time.Minute)
		host = reported()
		assert.Nil(t, host.SafeUntil)
		assert.Equal(t, 1, host.NotSafe)

		// What expires is told with the next sync, although no row has changed.
		h.pass(4 * time.Hour)
		host = reported()
		require.NotNil(t, host.SafeUntil)
		assert.True(t, end.Equal(*host.SafeUntil))
		assert.Equal(t, 2, host.NotSafe)

		expires("good", time.Now().Add(48*time.Hour))
		expires("never", time.Now().Add(96*time.Hour))
		h.pass(20 * time.Minute)
		host = reported()
		require.NotNil(t, host.SafeUntil)
		assert.True(t, host.SafeUntil.After(time.Now()))
		assert.Zero(t, host.NotSafe)
		h.stop()
	})
}
