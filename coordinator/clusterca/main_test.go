package clusterca

import (
	"crypto"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// found is the stored CA of a new cluster.
func found(t testing.TB, key ca.SealKey) *fleet.ClusterCA {
	t.Helper()
	first, err := Create(key, noon)
	require.NoError(t, err)
	return &fleet.ClusterCA{Authorities: []fleet.ClusterAuthority{first}, ModifyIndex: 7}
}

func parse(t testing.TB, stored *fleet.ClusterCA) *Roots {
	t.Helper()
	roots, err := Parse(stored)
	require.NoError(t, err)
	return roots
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	return key
}
