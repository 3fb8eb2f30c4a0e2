package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
)

func TestCreatedAuthorities(t *testing.T) {
	ca, stored := newCA(t, &clock{noon})
	certs := map[string]*x509.Certificate{}
	for _, a := range stored.Authorities {
		cert, err := x509.ParseCertificate(a.Certificate)
		require.NoError(t, err)
		certs[a.Name] = cert
		assert.True(t, cert.IsCA)
		assert.True(t, cert.BasicConstraintsValid)
		assert.Equal(t, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, cert.KeyUsage)
		assert.Equal(t, []string{"Example Corp"}, cert.Subject.Organization)
		assert.NotEmpty(t, cert.SubjectKeyId)
		assert.Equal(t, noon.Add(-ownBackdate), cert.NotBefore)
	}
	require.Len(t, certs, 3)
	root, identity, issuing := certs["root"], certs["identity"], certs["issuing"]

	assert.Equal(t, elliptic.P384(), root.PublicKey.(*ecdsa.PublicKey).Curve)
	assert.Equal(t, noon.Add(RootLifetime), root.NotAfter)
	assert.Equal(t, 1, root.MaxPathLen)
	assert.Empty(t, root.ExtKeyUsage)
	require.NoError(t, root.CheckSignatureFrom(root))
	for _, sub := range []*x509.Certificate{identity, issuing} {
		assert.Equal(t, elliptic.P256(), sub.PublicKey.(*ecdsa.PublicKey).Curve)
		assert.Equal(t, noon.Add(IssuingLifetime), sub.NotAfter)
		assert.True(t, sub.MaxPathLenZero)
		assert.Equal(t, root.SubjectKeyId, sub.AuthorityKeyId)
		require.NoError(t, sub.CheckSignatureFrom(root))
	}
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, identity.ExtKeyUsage)
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, issuing.ExtKeyUsage)
	assert.NotEqual(t, identity.RawSubject, issuing.RawSubject)
	assert.Contains(t, root.Subject.CommonName, ca.ClusterID()[:8])
	assert.True(t, ca.Root().Equal(root))
	assert.Equal(t, noon.Add(IssuingLifetime), ca.IssuerExpiry())
}

func TestTwoClustersDiffer(t *testing.T) {
	one, _ := newCA(t, &clock{noon})
	other, _ := newCA(t, &clock{noon})
	assert.NotEqual(t, one.ClusterID(), other.ClusterID())
	assert.NotEqual(t, one.Root().RawSubject, other.Root().RawSubject)
}

func TestALongNameFitsIntoTheSubject(t *testing.T) {
	c := config(t, &clock{noon})
	c.Name = strings.Repeat("ü", 32) // 64 octets, cut in the middle of a letter or not
	for _, name := range []string{c.Name, "x" + c.Name[:62]} {
		c.Name = name
		ca, err := New(c)
		require.NoError(t, err)
		authorities, err := ca.Create()
		require.NoError(t, err)
		require.NoError(t, ca.Unseal(&fleet.CA{Authorities: authorities}))
		assert.LessOrEqual(t, len(ca.Root().Subject.CommonName), maxCommonName)
		assert.Equal(t, []string{name}, ca.Root().Subject.Organization)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, damage := range map[string]func(*Config){
		"no name":             func(c *Config) { c.Name = "" },
		"a long name":         func(c *Config) { c.Name = strings.Repeat("a", 65) },
		"no seal key":         func(c *Config) { c.SealKeyFile = "" },
		"a relative path":     func(c *Config) { c.SealKeyFile = "seal.key" },
		"a bad seal key":      func(c *Config) { c.SealKey = "c2hvcnQ=" },
		"no leaf lifetime":    func(c *Config) { c.LeafLifetime = 0 },
		"a long lifetime":     func(c *Config) { c.LeafLifetime = IssuingLifetime + 1 },
		"no identity life":    func(c *Config) { c.IdentityLifetime = 0 },
		"a long identity":     func(c *Config) { c.IdentityLifetime = IssuingLifetime + 1 },
		"zeros as a seal key": func(c *Config) { c.SealKey = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" },
	} {
		t.Run(name, func(t *testing.T) {
			c := config(t, &clock{noon})
			damage(&c)
			_, err := New(c)
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "c2hvcnQ")
		})
	}
}

func TestASealedCAIssuesNothing(t *testing.T) {
	ca, err := New(config(t, &clock{noon}))
	require.NoError(t, err)
	pub, names := newKey(t).Public(), pki.MustParseNames("www.example.com")
	_, err = ca.IssueLeaf(names, pub, 0)
	require.ErrorIs(t, err, ErrSealed)
	_, err = ca.IssueServer(names, pub)
	require.ErrorIs(t, err, ErrSealed)
	_, err = ca.IssueIdentity("agent", pub)
	require.ErrorIs(t, err, ErrSealed)
	_, err = ca.AgentOf(&x509.Certificate{})
	require.ErrorIs(t, err, ErrSealed)
	for _, chain := range []func(*x509.Certificate) ([]*x509.Certificate, error){ca.LeafChain, ca.ServerChain, ca.IdentityChain} {
		_, err := chain(&x509.Certificate{})
		require.ErrorIs(t, err, ErrSealed)
	}
	assert.Nil(t, ca.Root())
	assert.Nil(t, ca.Identities())
	assert.Empty(t, ca.RootsPEM())
	assert.Empty(t, ca.ClusterID())
	assert.Zero(t, ca.IssuerExpiry())
	select {
	case <-ca.Unsealed():
		assert.Fail(t, "says that it is unsealed")
	default:
	}
}

func TestUnsealAgain(t *testing.T) {
	ca, stored := newCA(t, &clock{noon})
	<-ca.Unsealed()
	require.NoError(t, ca.Unseal(stored))
	<-ca.Unsealed()
}

// A crash after the seal key was written and before the CA was stored leaves a
// key that the next attempt has to use.
func TestCreateUsesTheSealKeyThatIsThere(t *testing.T) {
	c := config(t, &clock{noon})
	first, err := New(c)
	require.NoError(t, err)
	_, err = first.Create()
	require.NoError(t, err)
	before, err := os.ReadFile(c.SealKeyFile)
	require.NoError(t, err)
	info, err := os.Stat(c.SealKeyFile)
	require.NoError(t, err)
	if filepath.Separator == '/' {
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}

	second, err := New(c)
	require.NoError(t, err)
	authorities, err := second.Create()
	require.NoError(t, err)
	after, err := os.ReadFile(c.SealKeyFile)
	require.NoError(t, err)
	assert.Equal(t, before, after)
	require.NoError(t, first.Unseal(&fleet.CA{Authorities: authorities}))
}

func TestAGivenSealKeyWritesNoFile(t *testing.T) {
	c := config(t, &clock{noon})
	c.SealKey = NewSealKey().Reveal()
	ca, err := New(c)
	require.NoError(t, err)
	authorities, err := ca.Create()
	require.NoError(t, err)
	require.NoError(t, ca.Unseal(&fleet.CA{Authorities: authorities}))
	assert.NoFileExists(t, c.SealKeyFile)
}

func TestUnsealRefuses(t *testing.T) {
	now := &clock{noon}
	good, stored := newCA(t, now)
	at := func(i int) *fleet.Authority { return &stored.Authorities[i] }
	clone := func() *fleet.CA {
		c := &fleet.CA{}
		for _, a := range stored.Authorities {
			a.SealedKey = append([]byte(nil), a.SealedKey...)
			a.Certificate = append([]byte(nil), a.Certificate...)
			c.Authorities = append(c.Authorities, a)
		}
		return c
	}
	keyFile := good.config.SealKeyFile
	_, foreign := newCA(t, now)

	for name, c := range map[string]struct {
		prepare func(c *fleet.CA, config *Config)
		want    error
	}{
		"missing seal key":   {func(_ *fleet.CA, c *Config) { c.SealKeyFile += ".gone" }, ErrSealKeyMissing},
		"wrong seal key":     {func(_ *fleet.CA, c *Config) { c.SealKey = NewSealKey().Reveal() }, ErrWrongSealKey},
		"malformed seal key": {func(_ *fleet.CA, c *Config) { c.SealKeyFile = write(t, "not a key") }, ErrSealKeyMalformed},
		"empty seal key":     {func(_ *fleet.CA, c *Config) { c.SealKeyFile = write(t, "") }, ErrSealKeyMalformed},
		"huge seal key":      {func(_ *fleet.CA, c *Config) { c.SealKeyFile = write(t, strings.Repeat("A", 1<<16)) }, ErrSealKeyMalformed},
		"swapped keys": {func(c *fleet.CA, _ *Config) {
			c.Authorities[1].SealedKey, c.Authorities[2].SealedKey = c.Authorities[2].SealedKey, c.Authorities[1].SealedKey
		}, ErrSealDamaged},
		"swapped purposes": {func(c *fleet.CA, _ *Config) {
			c.Authorities[1].Name, c.Authorities[2].Name = c.Authorities[2].Name, c.Authorities[1].Name
		}, ErrSealDamaged},
		"no sealed key":      {func(c *fleet.CA, _ *Config) { c.Authorities[1].SealedKey = nil }, ErrSealDamaged},
		"later seal version": {func(c *fleet.CA, _ *Config) { c.Authorities[1].SealedKey[0]++ }, ErrSealDamaged},
		"damaged cert":       {func(c *fleet.CA, _ *Config) { c.Authorities[0].Certificate = []byte("x") }, ErrDamaged},
		"no root":            {func(c *fleet.CA, _ *Config) { c.Authorities = c.Authorities[1:] }, ErrDamaged},
		"no issuing CA":      {func(c *fleet.CA, _ *Config) { c.Authorities = c.Authorities[:2] }, ErrDamaged},
		"nothing":            {func(c *fleet.CA, _ *Config) { c.Authorities = nil }, ErrDamaged},
		"another's root":     {func(c *fleet.CA, _ *Config) { c.Authorities[0] = foreign.Authorities[0] }, ErrWrongSealKey},
	} {
		t.Run(name, func(t *testing.T) {
			conf, copied := good.config, clone()
			conf.SealKeyFile = keyFile
			c.prepare(copied, &conf)
			ca, err := New(conf)
			require.NoError(t, err)
			err = ca.Unseal(copied)
			require.ErrorIs(t, err, c.want)
			assert.Nil(t, ca.Root(), "it stays sealed")
			assert.NotContains(t, err.Error(), good.mustSealKey(t).Reveal())
		})
	}
	// An octet changed anywhere in the sealed key never goes unnoticed.
	for i := range at(1).SealedKey {
		copied := clone()
		copied.Authorities[1].SealedKey[i] ^= 0x40
		require.Error(t, good.Unseal(copied), "octet %d", i)
	}
	assert.NotNil(t, good.Root(), "a failed Unseal leaves what is open")
	require.NoError(t, good.Unseal(clone()))
}

// A key that fits its seal but not its certificates is refused too: with the
// seal key at hand somebody may have mended the state by hand.
func TestUnsealRefusesAnIssuerOfAnotherRoot(t *testing.T) {
	c := config(t, &clock{noon})
	c.SealKey = NewSealKey().Reveal()
	ca, err := New(c)
	require.NoError(t, err)
	one, err := ca.Create()
	require.NoError(t, err)
	other, err := ca.Create()
	require.NoError(t, err)
	one[2] = other[2]
	require.ErrorIs(t, ca.Unseal(&fleet.CA{Authorities: one}), ErrDamaged)
}

func (c *CA) mustSealKey(t *testing.T) SealKey {
	t.Helper()
	key, err := c.sealKey()
	require.NoError(t, err)
	return key
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestAuthoritiesEnd(t *testing.T) {
	now := &clock{noon}
	ca, _ := newCA(t, now)
	pub, names := newKey(t).Public(), pki.MustParseNames("www.example.com")
	now.at = ca.IssuerExpiry().Add(-time.Hour)
	leaf, err := ca.IssueLeaf(names, pub, 0)
	require.NoError(t, err)
	assert.Equal(t, ca.IssuerExpiry(), leaf.NotAfter, "a certificate ends with its issuer")

	now.at = ca.IssuerExpiry()
	_, err = ca.IssueLeaf(names, pub, 0)
	require.ErrorIs(t, err, ErrExpired)
	_, err = ca.IssueIdentity("agent", pub)
	require.ErrorIs(t, err, ErrExpired)
}

// A node that joins is given the seal key; one that has another is not made to
// forget it.
func TestKeepSealKey(t *testing.T) {
	key, path := NewSealKey(), filepath.Join(t.TempDir(), "seal.key")
	require.NoError(t, KeepSealKey(path, key))
	require.NoError(t, KeepSealKey(path, key), "again, after an answer that was lost")
	read, err := ReadSealKey(path)
	require.NoError(t, err)
	assert.Equal(t, key, read)
	if filepath.Separator == '/' {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
	err = KeepSealKey(path, NewSealKey())
	require.ErrorIs(t, err, ErrWrongSealKey)
	require.ErrorContains(t, err, path)
	assert.NotContains(t, err.Error(), key.Reveal())
	read, err = ReadSealKey(path)
	require.NoError(t, err)
	assert.Equal(t, key, read)
	require.ErrorIs(t, KeepSealKey(write(t, "x"), key), ErrSealKeyMalformed)
}

func TestSealKeyIsMadeOnceAndOnlyWhenAskedTo(t *testing.T) {
	c := config(t, &clock{noon})
	ca, err := New(c)
	require.NoError(t, err)
	_, err = ca.SealKey()
	require.ErrorIs(t, err, ErrSealKeyMissing)
	made, err := ca.EnsureSealKey()
	require.NoError(t, err)
	again, err := ca.EnsureSealKey()
	require.NoError(t, err)
	read, err := ca.SealKey()
	require.NoError(t, err)
	assert.Equal(t, made, again)
	assert.Equal(t, made, read)
}
