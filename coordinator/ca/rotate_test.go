package ca

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/trust"
)

// rotate takes a stored CA one step on, as the state does, and unseals it.
func rotate(t *testing.T, ca *CA, stored *fleet.CA, authority string, step Step) {
	t.Helper()
	change, err := ca.Rotate(stored, Rotation{Actor: "test", Authority: authority, Step: step})
	require.NoError(t, err)
	require.Equal(t, stored.ModifyIndex, change.Base)
	stored.Authorities, stored.ModifyIndex = change.Authorities, stored.ModifyIndex+1
	stored.Generations = append(stored.Generations, change.Generations...)
	require.NotEqual(t, stored.ModifyIndex, ca.Modified())
	require.NoError(t, ca.Refresh(stored))
	require.Equal(t, stored.ModifyIndex, ca.Modified())
}

func pool(roots ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, root := range roots {
		p.AddCert(root)
	}
	return p
}

// leads reports whether a chain, leaf first, verifies under the roots.
func leads(chain []*x509.Certificate, at time.Time, usage x509.ExtKeyUsage, roots ...*x509.Certificate) bool {
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: pool(roots...), Intermediates: pool(chain[1:]...), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	return err == nil
}

func newest(t *testing.T, stored *fleet.CA) *trust.Signed {
	t.Helper()
	g, err := trust.Parse(stored.Generations[len(stored.Generations)-1])
	require.NoError(t, err)
	return g
}

// The three steps of the root: at each of them everybody who has to get through
// does, whichever root they know.
func TestRotateRoot(t *testing.T) {
	now := &clock{noon}
	ca, stored := newCA(t, now)
	cluster, old := ca.ClusterID(), ca.Root()
	agent := newKey(t)
	identity, err := ca.IssueIdentity("agent-1", agent.Public())
	require.NoError(t, err)
	server := func() []*x509.Certificate {
		leaf, err := ca.IssueServer(pki.MustParseNames("pki.example.com"), newKey(t).Public())
		require.NoError(t, err)
		chain, err := ca.ServerChain(leaf)
		require.NoError(t, err)
		return chain
	}
	leaf, err := ca.IssueLeaf(pki.MustParseNames("www.example.com"), newKey(t).Public(), 0)
	require.NoError(t, err)
	deployed, err := ca.LeafChain(leaf)
	require.NoError(t, err)
	held := trust.Held{Roots: []*x509.Certificate{old}}

	rotate(t, ca, stored, "root", StepPublish)
	require.Len(t, stored.Generations, 2, "a CA without generations gets its first one, too")
	published := newest(t, stored)
	require.Len(t, published.Roots, 2)
	assert.True(t, ca.Root().Equal(old), "it signs nothing yet")
	fresh := published.Roots[0]
	if fresh.Equal(old) {
		fresh = published.Roots[1]
	}
	assert.NotEqual(t, old.RawSubject, fresh.RawSubject)
	for _, root := range []*x509.Certificate{old, fresh} {
		assert.True(t, leads(server(), now.at, x509.ExtKeyUsageServerAuth, root))
	}

	rotate(t, ca, stored, "root", StepActivate)
	assert.True(t, ca.Root().Equal(fresh))
	assert.Len(t, stored.Generations, 2, "nobody has to learn anything for it")
	for _, root := range []*x509.Certificate{old, fresh} {
		assert.True(t, leads(server(), now.at, x509.ExtKeyUsageServerAuth, root))
	}
	roots, err := pki.ParseChainPEM([]byte(ca.RootsPEM()))
	require.NoError(t, err)
	assert.True(t, trust.SameRoots(roots, []*x509.Certificate{old, fresh}))

	rotate(t, ca, stored, "root", StepRetire)
	assert.True(t, leads(server(), now.at, x509.ExtKeyUsageServerAuth, fresh))
	assert.False(t, leads(server(), now.at, x509.ExtKeyUsageServerAuth, old))
	assert.True(t, leads(deployed, now.at, x509.ExtKeyUsageServerAuth, old), "what is deployed stays good for who knows the old root")
	chain, err := ca.LeafChain(leaf)
	require.NoError(t, err)
	assert.True(t, leads(chain, now.at, x509.ExtKeyUsageServerAuth, fresh), "and the same key leads to the new one")
	chain, err = ca.IdentityChain(identity)
	require.NoError(t, err)
	assert.True(t, leads(chain, now.at, x509.ExtKeyUsageClientAuth, fresh))
	for _, a := range stored.Authorities {
		cert, err := x509.ParseCertificate(a.Certificate)
		require.NoError(t, err)
		assert.False(t, cert.Equal(old), "the old root and its key are gone")
		assert.Equal(t, a.State == fleet.AuthorityRetired && a.Name != "issuing", a.SealedKey == nil)
	}

	assert.Equal(t, cluster, ca.ClusterID(), "the cluster keeps its name")
	id, err := ca.AgentOf(identity)
	require.NoError(t, err)
	assert.Equal(t, "agent-1", id)
	got, err := held.Follow(stored.Generations)
	require.NoError(t, err)
	assert.True(t, trust.SameRoots(got.Roots, []*x509.Certificate{fresh}))
	other, err := New(ca.config)
	require.NoError(t, err)
	require.NoError(t, other.Unseal(stored), "another node, or the next start, reads it")
	assert.Equal(t, cluster, other.ClusterID())
}

// Identity CAs of ten years: an identity of the first is recognized for ever,
// whatever has expired or been replaced since.
func TestOldIdentitiesAreRecognized(t *testing.T) {
	now := &clock{noon}
	ca, stored := newCA(t, now)
	identity, err := ca.IssueIdentity("agent-1", newKey(t).Public())
	require.NoError(t, err)
	for range 4 {
		now.at = now.at.Add(3 * 365 * 24 * time.Hour)
		rotate(t, ca, stored, "identity", StepPublish)
		for _, step := range []Step{StepPublish, StepActivate, StepRetire} {
			rotate(t, ca, stored, "root", step)
		}
		id, err := ca.AgentOf(identity)
		require.NoError(t, err)
		assert.Equal(t, "agent-1", id)
		_, err = ca.IdentityChain(identity)
		require.ErrorIs(t, err, ErrOutdated, "its chain ends at a root that nobody trusts now")
		renewed, err := ca.IssueIdentity("agent-1", newKey(t).Public())
		require.NoError(t, err)
		chain, err := ca.IdentityChain(renewed)
		require.NoError(t, err)
		assert.True(t, leads(chain, now.at, x509.ExtKeyUsageClientAuth, ca.Root()))
	}
	leaf, err := ca.IssueLeaf(pki.MustParseNames("www.example.com"), newKey(t).Public(), 0)
	require.NoError(t, err)
	_, err = ca.AgentOf(leaf)
	require.ErrorIs(t, err, ErrNotIdentity)
}

func TestRotateIssuing(t *testing.T) {
	now := &clock{noon}
	ca, stored := newCA(t, now)
	leaf, err := ca.IssueLeaf(pki.MustParseNames("www.example.com"), newKey(t).Public(), 0)
	require.NoError(t, err)
	before, err := ca.LeafChain(leaf)
	require.NoError(t, err)
	for range maxRetired + 3 {
		rotate(t, ca, stored, "issuing", StepPublish)
		if len(stored.Authorities) == 4 {
			after, err := ca.LeafChain(leaf)
			require.NoError(t, err)
			assert.Equal(t, before, after, "an order that is being answered gets its own issuer")
		}
		fresh, err := ca.IssueLeaf(pki.MustParseNames("www.example.com"), newKey(t).Public(), 0)
		require.NoError(t, err)
		chain, err := ca.LeafChain(fresh)
		require.NoError(t, err)
		assert.NotEqual(t, before[1].RawSubject, chain[1].RawSubject)
		assert.True(t, leads(chain, now.at, x509.ExtKeyUsageServerAuth, ca.Root()))
		assert.True(t, leads(before, now.at, x509.ExtKeyUsageServerAuth, ca.Root()), "what is deployed stays good")
	}
	assert.Len(t, stored.Authorities, 3+maxRetired)
	assert.Len(t, stored.Generations, 1, "what agents trust has not changed")
}

func TestStepsThatDoNotFit(t *testing.T) {
	ca, stored := newCA(t, &clock{noon})
	refused := func(authority string, step Step) {
		t.Helper()
		_, err := ca.Rotate(stored, Rotation{Authority: authority, Step: step})
		require.ErrorIs(t, err, ErrRotation)
	}
	refused("root", StepActivate)
	refused("root", StepRetire)
	refused("issuing", StepActivate)
	refused("somebody", StepPublish)
	refused("root", "")
	rotate(t, ca, stored, "root", StepPublish)
	refused("root", StepPublish)
	refused("root", StepRetire)
	refused("identity", StepPublish)
	rotate(t, ca, stored, "root", StepActivate)
	refused("root", StepPublish)
	refused("root", StepActivate)
	refused("issuing", StepPublish)
	rotate(t, ca, stored, "root", StepRetire)
	rotate(t, ca, stored, "root", StepPublish)

	foreign := *stored
	foreign.Authorities = append([]fleet.Authority(nil), stored.Authorities...)
	for i := range foreign.Authorities {
		foreign.Authorities[i].SealedKey = nil
	}
	_, err := ca.Rotate(&foreign, Rotation{Authority: "root", Step: StepActivate})
	require.ErrorIs(t, err, ErrSealDamaged)
}

// The limits say what to do, and leave the CA as it was.
func TestLimitsOfRotation(t *testing.T) {
	ca, stored := newCA(t, &clock{noon})
	rotate(t, ca, stored, "root", StepPublish)
	rotate(t, ca, stored, "root", StepActivate)
	full := *stored
	for len(full.Generations) < trust.MaxGenerations {
		full.Generations = append(full.Generations, stored.Generations[1])
	}
	_, err := ca.Rotate(&full, Rotation{Authority: "root", Step: StepRetire})
	require.ErrorIs(t, err, ErrRotation)
	require.ErrorContains(t, err, "limit of 256 generations")

	ca, stored = newCA(t, &clock{noon})
	for len(stored.Authorities) <= fleet.MaxAuthorities-4 {
		retired := stored.Authorities[1]
		retired.State, retired.SealedKey = fleet.AuthorityRetired, nil
		stored.Authorities = append(stored.Authorities, retired)
	}
	_, err = ca.Rotate(stored, Rotation{Authority: "identity", Step: StepPublish})
	require.ErrorIs(t, err, ErrRotation)
	require.ErrorContains(t, err, "set up a new cluster")
}

func TestFirstGeneration(t *testing.T) {
	ca, stored := newCA(t, &clock{noon})
	stored.CreatedAt = noon.Add(-time.Hour)
	change, needed, err := ca.FirstGeneration(stored, "local")
	require.NoError(t, err)
	require.True(t, needed)
	assert.Equal(t, stored.Authorities, change.Authorities)
	require.Len(t, change.Generations, 1)
	stored.Generations = change.Generations
	g := newest(t, stored)
	assert.EqualValues(t, 1, g.Number)
	assert.Equal(t, stored.CreatedAt, g.CreatedAt)
	require.NoError(t, ca.Unseal(stored))
	_, needed, err = ca.FirstGeneration(stored, "local")
	require.NoError(t, err)
	assert.False(t, needed)
	stored.Generations = [][]byte{{1}}
	require.ErrorIs(t, ca.Unseal(stored), ErrDamaged)
}
