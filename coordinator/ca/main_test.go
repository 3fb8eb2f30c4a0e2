package ca

import (
	"crypto"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is the time in tests; it moves when told.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func config(t testing.TB, c *clock) Config {
	return Config{
		SealKeyFile: filepath.Join(t.TempDir(), "seal.key"), Name: "Example Corp",
		LeafLifetime: 30 * 24 * time.Hour, IdentityLifetime: 10 * 24 * time.Hour, Now: c.now,
	}
}

// newCA is an unsealed CA and what is stored of it.
func newCA(t testing.TB, c *clock) (*CA, *fleet.CA) {
	t.Helper()
	ca, err := New(config(t, c))
	require.NoError(t, err)
	authorities, err := ca.Create()
	require.NoError(t, err)
	stored := &fleet.CA{Authorities: authorities, CreatedAt: c.at}
	require.NoError(t, ca.Unseal(stored))
	return ca, stored
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	return key
}
