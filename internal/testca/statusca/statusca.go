// Package statusca is a certificate authority for tests that says by OCSP and by
// a revocation list what it has revoked, rightly or in every wrong way.
package statusca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ocsp"
)

// Mode is how the authority answers.
type Mode string

// Modes of both the responder and the list; True is the one that is right.
const (
	True         Mode = "true"
	Expired      Mode = "expired"       // an answer of last week
	Future       Mode = "future"        // an answer of tomorrow
	WrongSigner  Mode = "wrong signer"  // somebody else's signature
	OtherIssuer  Mode = "other issuer"  // an answer about certificates of somebody else
	Garbage      Mode = "garbage"       // no answer at all
	Huge         Mode = "huge"          // more than anybody reads
	Hang         Mode = "hang"          // nothing, for ever
	Error        Mode = "error"         // 503
	OtherScheme  Mode = "other scheme"  // a redirect to ftp
	Elsewhere    Mode = "elsewhere"     // a redirect to the metadata service of a cloud
	Endless      Mode = "endless"       // redirects without an end
	SelfIncluded Mode = "self included" // right, with the issuer's certificate in it

	// Of the responder alone.
	Unknown          Mode = "unknown"
	Undated          Mode = "undated" // right, without saying for how long
	Delegated        Mode = "delegated"
	DelegatedNoUsage Mode = "delegated without the usage"
	DelegatedExpired Mode = "delegated and expired"
	DelegatedAlien   Mode = "delegated by another"
	OtherSerial      Mode = "other serial"
	TryLater         Mode = "try later"

	// Of the list alone.
	OwnPoint    Mode = "own point"   // right, for the place where it is
	OtherPoint  Mode = "other point" // one part of several
	Indirect    Mode = "indirect"
	CAOnly      Mode = "ca only"
	SomeReasons Mode = "some reasons"
	Delta       Mode = "delta"
	Critical    Mode = "critical" // with an extension that nobody knows
)

// revoked is what the authority knows of a certificate.
type revoked struct {
	at     time.Time
	reason int
}

// CA is an authority with a responder and a list on a loopback port.
type CA struct {
	Cert *x509.Certificate
	URL  string
	// Now is its clock.
	Now func() time.Time

	t      testing.TB
	key    crypto.Signer
	alien  *x509.Certificate
	alienK crypto.Signer
	server *httptest.Server
	closed chan struct{}

	mu             sync.Mutex // guards what follows
	ocsp, crl      Mode
	serial, number int64
	revoked        map[string]revoked
	asked          map[string]int // requests by method and kind
}

// New runs an authority until the test's end.
func New(t testing.TB) *CA {
	t.Helper()
	ca := &CA{t: t, Now: time.Now, closed: make(chan struct{}), ocsp: True, crl: True, revoked: map[string]revoked{}, asked: map[string]int{}}
	ca.Cert, ca.key = authority(t, "Status CA")
	ca.alien, ca.alienK = authority(t, "Another CA")
	ca.server = httptest.NewServer(http.HandlerFunc(ca.serve))
	ca.URL = ca.server.URL
	t.Cleanup(func() {
		close(ca.closed)
		ca.server.Close()
	})
	return ca
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func authority(t testing.TB, name string) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key := newKey(t)
	cert := certify(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().AddDate(-5, 0, 0), NotAfter: time.Now().AddDate(30, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature, SubjectKeyId: []byte(name),
	}, nil, key.Public(), key)
	return cert, key
}

func certify(t testing.TB, template, issuer *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	if issuer == nil {
		issuer = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// Issue makes a certificate of 90 days that names responder and list. change may
// alter it first.
func (ca *CA) Issue(public crypto.PublicKey, name string, change func(*x509.Certificate)) *x509.Certificate {
	ca.t.Helper()
	ca.mu.Lock()
	ca.serial++
	serial := 1000 + ca.serial
	ca.mu.Unlock()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: ca.Now().Add(-time.Hour), NotAfter: ca.Now().AddDate(0, 0, 90), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		OCSPServer:  []string{ca.URL + "/ocsp"}, CRLDistributionPoints: []string{ca.CRLURL()},
	}
	if change != nil {
		change(template)
	}
	return certify(ca.t, template, ca.Cert, public, ca.key)
}

// Leaf is a certificate for a key that nobody keeps.
func (ca *CA) Leaf(change func(*x509.Certificate)) *x509.Certificate {
	ca.t.Helper()
	return ca.Issue(newKey(ca.t).Public(), "www.example.com", change)
}

// CRLURL is where the list is.
func (ca *CA) CRLURL() string { return ca.URL + "/list.crl" }

// Answer sets how the responder and the list answer from now on.
func (ca *CA) Answer(responder, list Mode) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.ocsp, ca.crl = responder, list
}

// Revoke revokes a certificate.
func (ca *CA) Revoke(cert *x509.Certificate, reason int) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.number++
	ca.revoked[cert.SerialNumber.String()] = revoked{at: ca.Now().Add(-time.Minute).Truncate(time.Second), reason: reason}
}

// Asked counts the requests of a kind, such as "GET ocsp", "POST ocsp", "GET crl".
func (ca *CA) Asked(kind string) int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.asked[kind]
}

func (ca *CA) serve(w http.ResponseWriter, r *http.Request) {
	kind := "crl"
	if strings.HasPrefix(r.URL.Path, "/ocsp") {
		kind = "ocsp"
	}
	ca.mu.Lock()
	ca.asked[r.Method+" "+kind]++
	mode := ca.crl
	if kind == "ocsp" {
		mode = ca.ocsp
	}
	ca.mu.Unlock()
	switch mode {
	case Hang:
		select {
		case <-r.Context().Done():
		case <-ca.closed:
		}
		return
	case Error:
		http.Error(w, "try later", http.StatusServiceUnavailable)
		return
	case Garbage:
		_, _ = io.WriteString(w, "<html>log in first</html>")
		return
	case Huge:
		block := make([]byte, 1<<20)
		for range 12 {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
		return
	case OtherScheme:
		http.Redirect(w, r, "ftp://"+r.Host+"/", http.StatusFound)
		return
	case Elsewhere:
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
		return
	case Endless:
		http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		return
	}
	if kind == "ocsp" {
		ca.serveOCSP(w, r, mode)
		return
	}
	list, tag := ca.list(mode)
	if w.Header().Set("ETag", tag); r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl")
	_, _ = w.Write(list)
}

func question(r *http.Request) ([]byte, error) {
	if r.Method == http.MethodPost {
		return io.ReadAll(io.LimitReader(r.Body, 64<<10))
	}
	_, text, _ := strings.Cut(r.URL.EscapedPath(), "/ocsp/")
	text, err := url.PathUnescape(text)
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(text)
}

func (ca *CA) serveOCSP(w http.ResponseWriter, r *http.Request, mode Mode) {
	der, err := question(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	asked, err := ocsp.ParseRequest(der)
	if err != nil {
		_, _ = w.Write(ocsp.MalformedRequestErrorResponse)
		return
	}
	if mode == TryLater {
		_, _ = w.Write(ocsp.TryLaterErrorResponse)
		return
	}
	_, _ = w.Write(ca.response(asked.SerialNumber, mode))
}

// Response is what the responder says of a certificate in a mode, for tests of
// whoever reads it.
func (ca *CA) Response(cert *x509.Certificate, mode Mode) []byte {
	return ca.response(cert.SerialNumber, mode)
}

func (ca *CA) response(serial *big.Int, mode Mode) []byte {
	now := ca.Now()
	template := ocsp.Response{Status: ocsp.Good, SerialNumber: serial, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(24 * time.Hour)}
	ca.mu.Lock()
	if known, is := ca.revoked[serial.String()]; is {
		template.Status, template.RevokedAt, template.RevocationReason = ocsp.Revoked, known.at, known.reason
	}
	ca.mu.Unlock()
	issuer, signer, key := ca.Cert, ca.Cert, ca.key
	delegate := func(by *x509.Certificate, byKey crypto.Signer, expired bool, usage ...x509.ExtKeyUsage) {
		responder := newKey(ca.t)
		until := now.AddDate(0, 1, 0)
		if expired {
			until = now.AddDate(0, 0, -1)
		}
		template.Certificate = certify(ca.t, &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Responder"}, NotBefore: now.AddDate(0, -1, 0), NotAfter: until,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage,
		}, by, responder.Public(), byKey)
		signer, key = template.Certificate, responder
	}
	switch mode {
	case Unknown:
		template.Status = ocsp.Unknown
	case Undated:
		template.NextUpdate = time.Time{}
	case Expired:
		template.ThisUpdate, template.NextUpdate = now.AddDate(0, 0, -14), now.AddDate(0, 0, -7)
	case Future:
		template.ThisUpdate, template.NextUpdate = now.AddDate(0, 0, 1), now.AddDate(0, 0, 8)
	case WrongSigner:
		key = ca.alienK
	case OtherIssuer:
		issuer = ca.alien
	case OtherSerial:
		template.SerialNumber = new(big.Int).Add(serial, big.NewInt(1))
	case SelfIncluded:
		template.Certificate = ca.Cert
	case Delegated:
		delegate(ca.Cert, ca.key, false, x509.ExtKeyUsageOCSPSigning)
	case DelegatedNoUsage:
		delegate(ca.Cert, ca.key, false, x509.ExtKeyUsageServerAuth)
	case DelegatedExpired:
		delegate(ca.Cert, ca.key, true, x509.ExtKeyUsageOCSPSigning)
	case DelegatedAlien:
		delegate(ca.alien, ca.alienK, false, x509.ExtKeyUsageOCSPSigning)
	}
	der, err := ocsp.CreateResponse(issuer, signer, template, key)
	require.NoError(ca.t, err)
	return der
}

// List is the revocation list in a mode.
func (ca *CA) List(mode Mode) []byte {
	der, _ := ca.list(mode)
	return der
}

func (ca *CA) list(mode Mode) (der []byte, tag string) {
	now := ca.Now()
	ca.mu.Lock()
	template := &x509.RevocationList{Number: big.NewInt(ca.number + 1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(24 * time.Hour)}
	for serial, known := range ca.revoked {
		number, _ := new(big.Int).SetString(serial, 10)
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: number, RevocationTime: known.at, ReasonCode: known.reason,
		})
	}
	ca.mu.Unlock()
	tag = `"` + template.Number.String() + string(mode) + `"`
	issuer, key := ca.Cert, ca.key
	extension := func(id []int, critical bool, value any, params string) {
		var text []byte
		if raw, is := value.([]byte); is {
			text = raw
		} else {
			var err error
			text, err = asn1.MarshalWithParams(value, params)
			require.NoError(ca.t, err)
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: text})
	}
	point := []int{2, 5, 29, 28}
	switch mode {
	case Expired:
		template.ThisUpdate, template.NextUpdate = now.AddDate(0, 0, -14), now.AddDate(0, 0, -7)
	case Future:
		template.ThisUpdate, template.NextUpdate = now.AddDate(0, 0, 1), now.AddDate(0, 0, 8)
	case WrongSigner:
		key = ca.alienK
		issuer = &x509.Certificate{Raw: ca.Cert.Raw, RawSubject: ca.Cert.RawSubject, SubjectKeyId: ca.Cert.SubjectKeyId, KeyUsage: x509.KeyUsageCRLSign, PublicKey: ca.alien.PublicKey}
	case OtherIssuer:
		issuer, key = ca.alien, ca.alienK
	case OwnPoint:
		extension(point, true, pointOf(ca.CRLURL()), "")
	case OtherPoint:
		extension(point, true, pointOf(ca.URL+"/part2.crl"), "")
	case Indirect:
		extension(point, true, []byte{0x30, 0x03, 0x84, 0x01, 0xff}, "")
	case CAOnly:
		extension(point, true, []byte{0x30, 0x03, 0x82, 0x01, 0xff}, "")
	case SomeReasons:
		extension(point, true, []byte{0x30, 0x04, 0x83, 0x02, 0x06, 0x40}, "")
	case Delta:
		extension([]int{2, 5, 29, 27}, true, 1, "")
	case Critical:
		extension([]int{1, 2, 3, 4}, true, 1, "")
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, issuer, key)
	require.NoError(ca.t, err)
	return der, tag
}

// pointOf is an IssuingDistributionPoint that names one place.
func pointOf(place string) []byte {
	wrap := func(tag byte, inner []byte) []byte {
		der, err := asn1.Marshal(asn1.RawValue{Class: int(tag >> 6), Tag: int(tag & 0x1f), IsCompound: tag&0x20 != 0, Bytes: inner})
		if err != nil {
			panic(err) // tags and octets are always DER
		}
		return der
	}
	return wrap(0x30, wrap(0xa0, wrap(0xa0, wrap(0x86, []byte(place)))))
}
