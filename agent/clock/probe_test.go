package clock

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// site is an https server with a certificate of its own root.
type site struct {
	*httptest.Server
	roots *x509.CertPool
	date  string // of its answers
	age   string
	seen  []*http.Request
}

func newSite(t *testing.T, notBefore, notAfter time.Time) *site {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: epoch.Add(-10 * year), NotAfter: epoch.Add(20 * year), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	require.NoError(t, err)
	root, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: notBefore, NotAfter: notAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	chain, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), key)
	require.NoError(t, err)
	s := &site{roots: x509.NewCertPool()}
	s.roots.AddCert(root)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.seen = append(s.seen, r)
		w.Header()["Date"] = nil
		if s.date != "" {
			w.Header().Set("Date", s.date)
		}
		if s.age != "" {
			w.Header().Set("Age", s.age)
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{chain}, PrivateKey: key}}, ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *site) says(at time.Time) { s.date = at.UTC().Format(http.TimeFormat) }

func (m *machine) probe(t *testing.T, s *site) error {
	t.Helper()
	return m.Probe(t.Context(), "site", s.URL, VerifyRoots(s.roots), nil)
}

func TestProbeWithAClockThatIsAYearOff(t *testing.T) {
	for _, wrong := range []time.Duration{year, -year} {
		m := newMachine(t)
		m.wrong = wrong
		m.start(t)
		s := newSite(t, epoch.Add(-30*day), epoch.Add(60*day))
		s.says(epoch)
		require.NoError(t, m.probe(t, s))
		assert.Less(t, m.off().Abs(), 2*time.Second)
		require.Len(t, s.seen, 1)
		assert.Equal(t, http.MethodHead, s.seen[0].Method)
		assert.Empty(t, s.seen[0].TLS.PeerCertificates, "it tells nobody who it is")
	}
}

func TestProbeRefusesWhatItsCertificateContradicts(t *testing.T) {
	m := newMachine(t)
	m.wrong = year
	m.start(t)
	s := newSite(t, epoch.Add(-30*day), epoch.Add(60*day))
	s.says(epoch.Add(100 * day))
	err := m.probe(t, s)
	require.ErrorContains(t, err, "own certificate is not valid")
	assert.True(t, OutOfTime(err))
	assert.Empty(t, m.Reading().Sources)
}

// Somebody who has the key of a certificate that expired long ago cannot take a
// host back to the time when it was good.
func TestProbeRefusesThePast(t *testing.T) {
	stolen := newSite(t, epoch.Add(-90*day), epoch.Add(-10*day))
	stolen.says(epoch.Add(-20 * day))

	m := newMachine(t)
	m.hear("coordinator", 0)
	require.ErrorContains(t, m.probe(t, stolen), "which has long been")

	m.reboot(t, 60*day) // unconfirmed, but not before the mark
	require.False(t, m.Reading().Confirmed)
	require.ErrorContains(t, m.probe(t, stolen), "which has long been")
	assert.Empty(t, m.Reading().Sources)

	m.set(-80 * day) // the clock of the host says so too
	require.NoError(t, m.probe(t, stolen), "every TLS client would do so")
}

func TestProbeRefusesOthers(t *testing.T) {
	m := newMachine(t)
	s := newSite(t, epoch.Add(-30*day), epoch.Add(60*day))
	s.says(epoch)
	other := newSite(t, epoch.Add(-30*day), epoch.Add(60*day))
	require.Error(t, m.Probe(t.Context(), "site", s.URL, VerifyRoots(other.roots), nil), "another root")
	require.Error(t, m.Probe(t.Context(), "site", "http://"+s.Listener.Addr().String(), VerifyRoots(s.roots), nil), "no TLS")
	require.Error(t, m.Probe(t.Context(), "site", "https://localhost:"+port(t, s), VerifyRoots(s.roots), nil), "another name")
	s.date = ""
	require.ErrorContains(t, m.probe(t, s), "no Date")
	s.says(epoch)
	s.age = "7"
	require.ErrorContains(t, m.probe(t, s), "cache")
	assert.Empty(t, m.Reading().Sources)
}

func port(t *testing.T, s *site) string {
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	require.NoError(t, err)
	return port
}

func TestTransport(t *testing.T) {
	m := newMachine(t)
	m.wrong = 5 * time.Hour
	m.start(t)
	s := newSite(t, epoch.Add(-30*day), epoch.Add(60*day))
	s.says(epoch)
	base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots, Time: m.Now}}
	t.Cleanup(base.CloseIdleConnections)
	client := &http.Client{Transport: m.Transport("site", VerifyRoots(s.roots), nil, base)}
	get := func() error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		require.NoError(t, err)
		response, err := client.Do(request)
		if err == nil {
			err = response.Body.Close()
		}
		return err
	}
	s.age = "3600"
	require.NoError(t, get())
	assert.Equal(t, 5*time.Hour, m.off(), "a cache does not know the time")
	s.age = ""
	require.NoError(t, get())
	assert.Less(t, m.off().Abs(), 2*time.Second)

	m.set(year)
	base.CloseIdleConnections()
	require.NoError(t, get(), "the connection goes by trusted time")
	base.TLSClientConfig.Time = m.Wall
	base.CloseIdleConnections()
	err := get()
	require.Error(t, err)
	assert.True(t, OutOfTime(err), err)
	assert.False(t, OutOfTime(io.EOF))
	assert.False(t, OutOfTime(nil))
}

// The first connection of a host whose clock is wrong.
func TestTransportOfAHostThatKnowsNoTime(t *testing.T) {
	m := newMachine(t)
	m.wrong = -2 * year
	m.start(t)
	s := newSite(t, epoch.Add(-30*day), epoch.Add(60*day))
	s.says(epoch)
	base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots, Time: m.Now}}
	t.Cleanup(base.CloseIdleConnections)
	client := &http.Client{Transport: m.Transport("site", VerifyRoots(s.roots), nil, base)}
	post := func() error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/path", strings.NewReader("body"))
		require.NoError(t, err)
		response, err := client.Do(request)
		if err == nil {
			err = response.Body.Close()
		}
		return err
	}
	s.says(epoch.Add(-100 * day))
	assert.True(t, OutOfTime(post()), "a time when its own certificate is not valid")
	require.Len(t, s.seen, 1)
	s.says(epoch)
	require.NoError(t, post())
	require.Len(t, s.seen, 3)
	assert.Equal(t, http.MethodHead, s.seen[1].Method)
	assert.Equal(t, "/", s.seen[1].URL.Path)
	assert.Equal(t, http.MethodPost, s.seen[2].Method)
	assert.EqualValues(t, 4, s.seen[2].ContentLength)
	assert.Less(t, m.off().Abs(), 2*time.Second)
}
