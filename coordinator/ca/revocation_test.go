package ca

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
)

const listBase = "http://crl.example.com/ca/"

// listedCA is a CA whose certificates name a list.
func listedCA(t *testing.T, now *clock) (*CA, *fleet.CA) {
	t.Helper()
	c := config(t, now)
	c.RevocationURL = listBase
	ca, err := New(c)
	require.NoError(t, err)
	authorities, err := ca.Create()
	require.NoError(t, err)
	stored := &fleet.CA{Authorities: authorities, CreatedAt: now.at}
	require.NoError(t, ca.Unseal(stored))
	return ca, stored
}

func leafOf(t *testing.T, ca *CA) *x509.Certificate {
	t.Helper()
	leaf, err := ca.IssueLeaf(pki.MustParseNames("www.example.com"), newKey(t).Public(), 0)
	require.NoError(t, err)
	return leaf
}

func revoked(leaf *x509.Certificate, reason int) *fleet.Revocation {
	return &fleet.Revocation{
		Serial: pki.SerialHex(leaf), At: noon.Add(time.Minute), Reason: reason, NotAfter: leaf.NotAfter, Signer: hex.EncodeToString(leaf.AuthorityKeyId),
	}
}

func TestRevocationList(t *testing.T) {
	ca, stored := listedCA(t, &clock{noon})
	one, two := leafOf(t, ca), leafOf(t, ca)
	id := ca.ListSigners()[0]
	require.Len(t, ca.ListSigners(), 1)
	assert.Equal(t, []string{listBase + id + ".crl"}, one.CRLDistributionPoints)
	old := &fleet.Revocation{Serial: "0a", At: noon, NotAfter: noon.Add(time.Hour)} // of a version that kept no signer

	rotate(t, ca, stored, "issuing", StepPublish)
	require.Len(t, ca.ListSigners(), 2)
	assert.Equal(t, id, ca.ListSigners()[1], "the retired one signs on")
	later := leafOf(t, ca)
	assert.NotEqual(t, one.CRLDistributionPoints, later.CRLDistributionPoints)

	list := &fleet.RevocationList{Number: 7, ThisUpdate: noon, NextUpdate: noon.Add(24 * time.Hour), Index: 40}
	entries := []*fleet.Revocation{old, revoked(one, 1), revoked(later, 4), revoked(two, 0)}
	signers := map[string]*x509.Certificate{}
	for _, a := range stored.Authorities {
		if cert, err := x509.ParseCertificate(a.Certificate); assert.NoError(t, err) && a.Name == issuingAuthority {
			signers[keyID(cert)] = cert
		}
	}
	for signer, want := range map[string]map[string]int{
		id:                  {"a": 0, one.SerialNumber.Text(16): 1, two.SerialNumber.Text(16): 0},
		ca.ListSigners()[0]: {"a": 0, later.SerialNumber.Text(16): 4},
	} {
		der, err := ca.RevocationList(signer, list, entries)
		require.NoError(t, err)
		again, err := ca.RevocationList(signer, list, entries)
		require.NoError(t, err)
		assert.Equal(t, der, again, "every node makes the same octets")
		crl, err := x509.ParseRevocationList(der)
		require.NoError(t, err)
		require.NoError(t, crl.CheckSignatureFrom(signers[signer]))
		assert.Equal(t, big.NewInt(7), crl.Number)
		assert.Equal(t, noon, crl.ThisUpdate)
		assert.Equal(t, noon.Add(24*time.Hour), crl.NextUpdate)
		assert.Equal(t, signers[signer].SubjectKeyId, crl.AuthorityKeyId)
		got := map[string]int{}
		for _, e := range crl.RevokedCertificateEntries {
			got[e.SerialNumber.Text(16)] = e.ReasonCode
		}
		assert.Equal(t, want, got)
	}
	_, err := ca.RevocationList("00", list, entries)
	require.ErrorIs(t, err, ErrNoIssuer)
	_, err = ca.RevocationList(id, list, []*fleet.Revocation{{Serial: "zz", Signer: id}})
	require.ErrorContains(t, err, "zz")
}

// A rotation of the root leaves the list where it is: the key beneath stays.
func TestTheListSurvivesARotationOfTheRoot(t *testing.T) {
	ca, stored := listedCA(t, &clock{noon})
	before, leaf := ca.ListSigners(), leafOf(t, ca)
	for _, step := range []Step{StepPublish, StepActivate, StepRetire} {
		rotate(t, ca, stored, "root", step)
		assert.Equal(t, before[0], ca.ListSigners()[0], step)
	}
	assert.Equal(t, leaf.CRLDistributionPoints, leafOf(t, ca).CRLDistributionPoints)
	der, err := ca.RevocationList(before[0], &fleet.RevocationList{Number: 1, ThisUpdate: noon, NextUpdate: noon.Add(time.Hour)}, nil)
	require.NoError(t, err)
	crl, err := x509.ParseRevocationList(der)
	require.NoError(t, err)
	chain, err := ca.LeafChain(leaf)
	require.NoError(t, err)
	require.NoError(t, crl.CheckSignatureFrom(chain[1]))
}

func TestCertificatesThatNameNoList(t *testing.T) {
	ca, _ := newCA(t, &clock{noon})
	assert.Empty(t, leafOf(t, ca).CRLDistributionPoints)
	assert.Len(t, ca.ListSigners(), 1, "there is one all the same")

	sealed, err := New(config(t, &clock{noon}))
	require.NoError(t, err)
	assert.Empty(t, sealed.ListSigners())
	_, err = sealed.RevocationList("00", nil, nil)
	require.ErrorIs(t, err, ErrSealed)
}

// OpenSSL reads the list, and refuses what stands on it.
func TestOpenSSLReadsTheList(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	now := time.Now()
	ca, _ := listedCA(t, &clock{now})
	good, bad := leafOf(t, ca), leafOf(t, ca)
	dir := t.TempDir()
	file := func(name string, certs ...*x509.Certificate) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, pki.EncodeChainPEM(certs), 0o600))
		return path
	}
	chain, err := ca.LeafChain(good)
	require.NoError(t, err)
	root, issuing := file("root.pem", ca.Root()), file("issuing.pem", chain[1])
	entry := revoked(bad, 1)
	entry.At = now
	der, err := ca.RevocationList(ca.ListSigners()[0], &fleet.RevocationList{Number: 3, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}, []*fleet.Revocation{entry})
	require.NoError(t, err)
	crl := filepath.Join(dir, "list.crl")
	require.NoError(t, os.WriteFile(crl, der, 0o600))
	pem := filepath.Join(dir, "list.pem")

	run := func(args ...string) (string, error) {
		text, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput()
		return string(text), err
	}
	text, err := run("crl", "-inform", "DER", "-in", crl, "-CAfile", issuing, "-verify", "-noout", "-text")
	require.NoError(t, err, text)
	assert.Contains(t, text, "verify OK")
	assert.Contains(t, text, "X509v3 CRL Number: \n                3\n")
	assert.Contains(t, text, "Key Compromise")
	text, err = run("crl", "-inform", "DER", "-in", crl, "-out", pem)
	require.NoError(t, err, text)
	verify := []string{"verify", "-CAfile", root, "-untrusted", issuing, "-CRLfile", pem, "-crl_check"}
	text, err = run(append(verify, file("good.pem", good))...)
	require.NoError(t, err, text)
	text, err = run(append(verify, file("bad.pem", bad))...)
	require.Error(t, err, text)
	assert.Contains(t, text, "certificate revoked")
}

func BenchmarkRevocationList(b *testing.B) {
	ca, _ := newCA(b, &clock{noon})
	id := ca.ListSigners()[0]
	var entries []*fleet.Revocation
	for i := range fleet.MaxRevocations {
		entries = append(entries, &fleet.Revocation{Serial: fmt.Sprintf("40%030x", i), At: noon, Reason: 5, Signer: id})
	}
	list := &fleet.RevocationList{Number: 1, ThisUpdate: noon, NextUpdate: noon.Add(time.Hour)}
	for b.Loop() {
		der, err := ca.RevocationList(id, list, entries)
		require.NoError(b, err)
		b.ReportMetric(float64(len(der)), "octets")
	}
}
