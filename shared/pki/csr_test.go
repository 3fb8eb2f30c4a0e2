package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/shared/pki"
)

func TestCSRRoundTrip(t *testing.T) {
	key := newKey(t)
	rapid.Check(t, func(t *rapid.T) {
		names := anyNames(t)
		der, err := pki.CreateCSR(key, names)
		if names.IsZero() {
			require.ErrorIs(t, err, pki.ErrNoNames)
			return
		}
		require.NoError(t, err)
		csr, err := pki.ParseCSR(der)
		require.NoError(t, err)
		require.True(t, names.Equal(csr.Names), "%v became %v", names, csr.Names)
		require.True(t, pki.SamePublicKey(key.Public(), csr.PublicKey))
		require.Equal(t, der, csr.Raw)
	})
}

func TestCreateCSRForEachKey(t *testing.T) {
	for _, algorithm := range []pki.KeyAlgorithm{pki.ECDSAP256, pki.ECDSAP384, pki.RSA2048, pki.Ed25519} {
		var key crypto.Signer = rsa2048()
		if algorithm != pki.RSA2048 {
			var err error
			key, err = pki.GenerateKey(algorithm)
			require.NoError(t, err)
		}
		der, err := pki.CreateCSR(key, pki.MustParseNames("a.example.com"))
		require.NoError(t, err, algorithm)
		_, err = pki.ParseCSR(der)
		require.NoError(t, err, algorithm)
	}
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	_, err = pki.CreateCSR(weak, pki.MustParseNames("a.example.com"))
	require.ErrorIs(t, err, pki.ErrWeakKey)
}

func TestCreateCSRCommonName(t *testing.T) {
	long := strings.Repeat("a", 53) + ".example.com" // 65 octets
	for _, c := range []struct {
		names []string
		cn    string
	}{
		{[]string{"b.example.com", "a.example.com"}, "a.example.com"},
		{[]string{long[1:]}, long[1:]},
		{[]string{long}, ""},
		{[]string{"192.0.2.1"}, ""},
	} {
		der, err := pki.CreateCSR(newKey(t), pki.MustParseNames(c.names...))
		require.NoError(t, err)
		req, err := x509.ParseCertificateRequest(der)
		require.NoError(t, err)
		assert.Equal(t, c.cn, req.Subject.CommonName)
		_, err = pki.ParseCSR(der)
		require.NoError(t, err)
	}
}

func makeCSR(t testing.TB, tmpl *x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	require.NoError(t, err)
	return der
}

// generalNames encodes a subjectAltName with one entry of the given context tag.
func generalNames(t testing.TB, tag int, constructed bool, content []byte) []byte {
	t.Helper()
	der, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: constructed, Bytes: content}})
	require.NoError(t, err)
	return der
}

func TestParseCSRAcceptsHarmlessExtensions(t *testing.T) {
	notCA, err := asn1.Marshal(struct{}{})
	require.NoError(t, err)
	der := makeCSR(t, &x509.CertificateRequest{
		DNSNames:    []string{"A.example.com"},
		IPAddresses: []net.IP{net.ParseIP("192.0.2.1"), net.ParseIP("2001:db8::1")},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: notCA},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{3, 2, 7, 0x80}},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}},
		},
	}, newKey(t))
	csr, err := pki.ParseCSR(der)
	require.NoError(t, err)
	assert.Equal(t, pki.MustParseNames("a.example.com", "192.0.2.1", "2001:db8::1"), csr.Names)
}

// sha1CSR re-signs a request with SHA-1, which crypto/x509 no longer does.
func sha1CSR(t testing.TB) []byte {
	t.Helper()
	type request struct {
		Info      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	var r request
	_, err := asn1.Unmarshal(makeCSR(t, &x509.CertificateRequest{DNSNames: []string{"a.example.com"}}, rsa2048()), &r)
	require.NoError(t, err)
	digest := sha1.Sum(r.Info.FullBytes)
	signature, err := rsa2048().Sign(rand.Reader, digest[:], crypto.SHA1)
	require.NoError(t, err)
	r.Algorithm = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, Parameters: asn1.NullRawValue}
	r.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err := asn1.Marshal(r)
	require.NoError(t, err)
	return der
}

func TestParseCSRRefuses(t *testing.T) {
	key := newKey(t)
	uri, err := url.Parse("spiffe://example.com/web")
	require.NoError(t, err)
	san := asn1.ObjectIdentifier{2, 5, 29, 17}
	dns := []string{"a.example.com"}
	good := makeCSR(t, &x509.CertificateRequest{DNSNames: dns}, key)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	extension := func(id asn1.ObjectIdentifier, value []byte) *x509.CertificateRequest {
		tmpl := &x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: id, Value: value}}}
		if !id.Equal(san) {
			tmpl.DNSNames = dns
		}
		return tmpl
	}
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	swapped := []byte(strings.Replace(string(good), "a.example.com", "b.example.com", 1))

	for _, c := range []struct {
		name  string
		der   []byte
		wants string
	}{
		{"empty", nil, "want PKCS #10 in DER"},
		{"PEM", []byte("-----BEGIN CERTIFICATE REQUEST-----"), "want PKCS #10 in DER"},
		{"truncated", good[:len(good)-5], "want PKCS #10 in DER"},
		{"trailing data", append(append([]byte(nil), good...), 0), "want PKCS #10 in DER"},
		{"too large", make([]byte, pki.MaxCSR+1), "16385 octets; at most 16384 are read"},
		{"forged signature", forged, "does not prove possession"},
		{"name swapped after signing", swapped, "does not prove possession"},
		{"weak key", makeCSR(t, &x509.CertificateRequest{DNSNames: dns}, p224), "ECDSA on another curve"},
		{"no names", makeCSR(t, &x509.CertificateRequest{}, key), "subjectAltName: no names"},
		{"common name only", makeCSR(t, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a.example.com"}}, key), "no names"},
		{"other common name", makeCSR(t, &x509.CertificateRequest{DNSNames: dns, Subject: pkix.Name{CommonName: "b.example.com"}}, key),
			`common name "b.example.com" is not in subjectAltName`},
		{"prose as common name", makeCSR(t, &x509.CertificateRequest{DNSNames: dns, Subject: pkix.Name{CommonName: "My Server"}}, key), "common name"},
		{"organisation", makeCSR(t, &x509.CertificateRequest{DNSNames: dns, Subject: pkix.Name{Organization: []string{"Bank"}}}, key), "want no subject or one common name"},
		{"e-mail", makeCSR(t, &x509.CertificateRequest{DNSNames: dns, EmailAddresses: []string{"a@example.com"}}, key), "name of type [1]"},
		{"URI", makeCSR(t, &x509.CertificateRequest{DNSNames: dns, URIs: []*url.URL{uri}}, key), "name of type [6]"},
		{"other name", makeCSR(t, extension(san, generalNames(t, 0, true, []byte{6, 1, 42})), key), "name of type [0]"},
		{"directory name", makeCSR(t, extension(san, generalNames(t, 4, true, []byte{0x30, 0})), key), "name of type [4]"},
		{"registered id", makeCSR(t, extension(san, generalNames(t, 8, false, []byte{42})), key), "name of type [8]"},
		{"bad name", makeCSR(t, &x509.CertificateRequest{DNSNames: []string{"a_b.example.com"}}, key), `name "a_b.example.com"`},
		{"CA", makeCSR(t, extension(asn1.ObjectIdentifier{2, 5, 29, 19}, []byte{0x30, 3, 1, 1, 0xff}), key), "asks for a CA certificate"},
		{"damaged constraints", makeCSR(t, extension(asn1.ObjectIdentifier{2, 5, 29, 19}, []byte{0x30, 9}), key), "basicConstraints is damaged"},
		{"unknown extension", makeCSR(t, extension(asn1.ObjectIdentifier{1, 2, 3, 4}, []byte{5, 0}), key), "extension 1.2.3.4 is not supported"},
		{"SHA-1", sha1CSR(t), "signed with SHA1-RSA; sign with SHA-256 or better"},
	} {
		t.Run(c.name, func(t *testing.T) {
			csr, err := pki.ParseCSR(c.der)
			require.ErrorContains(t, err, c.wants)
			assert.Nil(t, csr)
		})
	}
}

func FuzzParseCSR(f *testing.F) {
	for _, names := range []pki.Names{pki.MustParseNames("a.example.com"), pki.MustParseNames("*.example.com", "192.0.2.1")} {
		der, err := pki.CreateCSR(newKey(f), names)
		require.NoError(f, err)
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := pki.ParseCSR(der)
		if err != nil {
			return
		}
		require.False(t, csr.Names.IsZero())
		require.NoError(t, pki.CheckPublicKey(csr.PublicKey))
		again, err := pki.ParseNames(csr.Names.Strings())
		require.NoError(t, err)
		require.True(t, again.Equal(csr.Names))
	})
}
