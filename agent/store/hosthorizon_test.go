package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/wire"
)

// The host's horizon follows what one place of one certificate serves.
func TestHorizonOfTheHost(t *testing.T) {
	s := openTest(t, Options{})
	hour := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Hour) }
	place := func(name string, d Deployment) {
		t.Helper()
		require.NoError(t, s.Update(name, func(tx *CertificateTx) error {
			tx.Record.Deployments = map[string]Deployment{"nginx": d}
			return nil
		}))
	}
	check := func(how string, now, until time.Time, notSafe []string) {
		t.Helper()
		h, err := s.Horizon(now)
		require.NoError(t, err)
		assert.Equal(t, notSafe, h.NotSafe, how)
		if until.IsZero() {
			assert.Nil(t, h.SafeUntil, how)
		} else if assert.NotNil(t, h.SafeUntil, how) {
			assert.True(t, until.Equal(*h.SafeUntil), "%s: %v", how, h.SafeUntil)
		}
	}
	expect := func(now, until time.Time, notSafe ...string) {
		t.Helper()
		check("as it goes on", now, until, notSafe)
		names, revision := s.unserved.names, s.unserved.revision
		s.unserved.names, s.unserved.revision = nil, 0
		check("with the whole file read", now, until, notSafe)
		s.unserved.names, s.unserved.revision = names, revision
	}
	none := time.Time{}
	expect(epoch, none)
	put(t, s, "api", epoch, hour(50))
	put(t, s, "web", epoch, hour(60))
	expect(epoch, hour(50))
	place("web", Deployment{Outcome: wire.DeploymentFailed, Fingerprint: "older", NotAfter: hour(20)})
	expect(epoch, hour(20))

	// One that was never issued, or is not in service at a place, leaves no moment
	// ahead; what is past stays the worse news.
	put(t, s, "never", epoch, none)
	expect(epoch, none, "never")
	expect(hour(20), hour(20), "never", "web")
	expect(hour(50), hour(20), "api", "never", "web")
	place("api", Deployment{})
	expect(epoch, none, "api", "never")
	place("api", Deployment{Outcome: wire.DeploymentVerified, Fingerprint: "f", NotAfter: hour(50)})
	expect(epoch, none, "never")
	put(t, s, "never", epoch, hour(70))
	expect(epoch, hour(20))

	// What left the configuration counts no more, and counts again when it is back.
	put(t, s, "never", epoch, none)
	require.NoError(t, s.Retire([]string{"never", "web"}, epoch, removalOf))
	expect(epoch, hour(50))
	head, err := s.Changes(0, 1)
	require.NoError(t, err)
	require.NoError(t, s.SaveSyncState(SyncState{AckedRevision: head.Head}))
	expect(epoch, hour(50))
	require.NoError(t, s.Restore([]string{"never", "web"}))
	expect(epoch, none, "never")

	// One that is revoked has ended.
	_, err = remove(s, "never")
	require.NoError(t, err)
	require.NoError(t, s.Update("web", func(tx *CertificateTx) error {
		tx.Record.Deployments = nil
		tx.Record.Current.Revoked = &Revocation{At: hour(-3)}
		return nil
	}))
	expect(epoch, hour(-3), "web")
}

// Asking again reads what has changed, not every certificate.
func TestHorizonReadsWhatHasChanged(t *testing.T) {
	s := openTest(t, Options{})
	for i := range 20 {
		put(t, s, fmt.Sprintf("web-%02d", i), epoch, epoch.Add(time.Hour))
	}
	put(t, s, "never", epoch, time.Time{})
	_, err := s.Horizon(epoch)
	require.NoError(t, err)
	// What was not asked for since is not looked at: a lie about it stays.
	s.unserved.names["web-00"] = true
	put(t, s, "web-01", epoch, time.Time{})
	h, err := s.Horizon(epoch)
	require.NoError(t, err)
	assert.Equal(t, []string{"never", "web-00", "web-01"}, h.NotSafe)
}
