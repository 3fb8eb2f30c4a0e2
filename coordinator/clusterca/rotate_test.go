package clusterca

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
)

func store(t *testing.T, stored *fleet.ClusterCA, change fleet.ChangeClusterCA) *fleet.ClusterCA {
	t.Helper()
	require.Equal(t, stored.ModifyIndex, change.PrevIndex)
	require.Equal(t, "admin", change.Actor)
	return &fleet.ClusterCA{Authorities: change.Authorities, ModifyIndex: stored.ModifyIndex + 1}
}

// The whole of a rotation, with a member that is slow and one that is down.
func TestRotation(t *testing.T) {
	key := ca.NewSealKey()
	stored := found(t, key)
	old := parse(t, stored)
	oldPrint := old.Fingerprints()[0]
	members := []string{"c", "b", "a"}
	a := &fleet.ClusterNode{ID: "a", Trusts: []string{oldPrint}, Signer: oldPrint}
	b := &fleet.ClusterNode{ID: "b", Trusts: []string{oldPrint}, Signer: oldPrint}
	gone := &fleet.ClusterNode{ID: "gone", Trusts: []string{oldPrint}, Signer: oldPrint} // was removed
	nodes := []*fleet.ClusterNode{a, b, gone}

	change, progress, err := Next(stored, nodes, members, "admin")
	require.NoError(t, err)
	assert.Nil(t, change)
	assert.Equal(t, Progress{}, progress, "nothing to do")

	begun, err := Begin(stored, key, "admin", noon.Add(time.Hour))
	require.NoError(t, err)
	stored = store(t, stored, begun)
	published := parse(t, stored)
	assert.Equal(t, old.ClusterID, published.ClusterID)
	assert.Equal(t, oldPrint, published.Fingerprints()[0], "the old one signs")
	require.Len(t, published.Fingerprints(), 2)
	newPrint := published.Fingerprints()[1]
	_, err = Begin(stored, key, "admin", noon)
	require.ErrorIs(t, err, ErrRotation, "one at a time")

	a.Trusts = append(a.Trusts, newPrint)
	change, progress, err = Next(stored, nodes, members, "admin")
	require.NoError(t, err)
	assert.Nil(t, change)
	assert.Equal(t, Progress{Step: StepActivate, Waiting: []Waiting{
		{"b", "it does not trust the new root yet"}, {"c", "it has not said yet what it trusts"},
	}}, progress)

	b.Trusts = append(b.Trusts, newPrint)
	members = []string{"a", "b"} // c was removed
	change, progress, err = Next(stored, nodes, members, "admin")
	require.NoError(t, err)
	assert.Equal(t, Progress{Step: StepActivate}, progress)
	stored = store(t, stored, *change)
	active := parse(t, stored)
	assert.Equal(t, []string{newPrint, oldPrint}, active.Fingerprints())
	assert.Empty(t, stored.Authorities[1].SealedKey, "the old key is gone")
	assert.Equal(t, fleet.AuthorityRetiring, stored.Authorities[1].State)
	node, err := Issue(stored, key, "a", newKey(t).Public(), noon)
	require.NoError(t, err)
	assert.Equal(t, newPrint, active.SignerOf(node))
	before, err := old.Issue(key, "b", newKey(t).Public(), noon)
	require.NoError(t, err)
	_, err = active.Verify([]*x509.Certificate{before}, Client, noon)
	require.NoError(t, err, "both are trusted")

	a.Signer = newPrint
	change, progress, err = Next(stored, nodes, members, "admin")
	require.NoError(t, err)
	assert.Nil(t, change)
	assert.Equal(t, Progress{Step: StepRetire, Waiting: []Waiting{{"b", "its certificate is still signed by the old root"}}}, progress)

	b.Signer = newPrint
	change, progress, err = Next(stored, nodes, members, "admin")
	require.NoError(t, err)
	assert.Equal(t, Progress{Step: StepRetire}, progress)
	stored = store(t, stored, *change)
	last := parse(t, stored)
	assert.Equal(t, []string{newPrint}, last.Fingerprints())
	assert.Equal(t, old.ClusterID, last.ClusterID)
	_, err = last.Verify([]*x509.Certificate{before}, Client, noon)
	require.ErrorIs(t, err, ErrUntrusted)
	_, err = last.Verify([]*x509.Certificate{node}, Client, noon)
	require.NoError(t, err)
}

func TestRotationNeedsTheSealKey(t *testing.T) {
	stored := found(t, ca.NewSealKey())
	_, err := Begin(stored, ca.NewSealKey(), "admin", noon)
	require.ErrorIs(t, err, ca.ErrWrongSealKey)
	_, err = Begin(&fleet.ClusterCA{}, ca.NewSealKey(), "admin", noon)
	require.ErrorIs(t, err, ErrDamaged)
	_, _, err = Next(&fleet.ClusterCA{}, nil, []string{"a"}, "admin")
	require.ErrorIs(t, err, ErrDamaged)
	_, _, err = Next(stored, nil, nil, "admin")
	require.ErrorIs(t, err, ErrRotation, "nobody is to wait for")
}

// What is given stays as it is: it is the state's.
func TestRotationChangesNothingByItself(t *testing.T) {
	key := ca.NewSealKey()
	stored := found(t, key)
	begun, err := Begin(stored, key, "admin", noon)
	require.NoError(t, err)
	require.Len(t, stored.Authorities, 1)
	stored = store(t, stored, begun)
	before := append([]fleet.ClusterAuthority(nil), stored.Authorities...)
	follows := &fleet.ClusterNode{ID: "a", Trusts: []string{stored.Authorities[1].Fingerprint()}}
	change, _, err := Next(stored, []*fleet.ClusterNode{follows}, []string{"a"}, "admin")
	require.NoError(t, err)
	require.NotNil(t, change)
	assert.Equal(t, before, stored.Authorities)
}

func TestDue(t *testing.T) {
	roots := parse(t, found(t, ca.NewSealKey()))
	end := roots.Signer().NotAfter
	assert.False(t, roots.Due(noon))
	assert.False(t, roots.Due(end.Add(-replaceWithin-time.Second)))
	assert.True(t, roots.Due(end.Add(-replaceWithin)))
}
