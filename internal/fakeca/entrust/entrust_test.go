package entrust_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/entrust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ca = entrust.Base + "/v1/certificate-authorities/fake-partition~fake%2Fca"

// account is a client of the API that knows nothing but paths and JSON.
type account struct {
	t      *testing.T
	fake   *entrust.Server
	client *x509.Certificate
}

func newAccount(t *testing.T, c fakeca.Config) *account {
	a := &account{t: t, fake: entrust.New(c)}
	var err error
	a.client, err = x509.ParseCertificate(a.fake.Client().Certificate[0])
	require.NoError(t, err)
	return a
}

func (a *account) raw(method, path string, body any) *httptest.ResponseRecorder {
	a.t.Helper()
	data, err := json.Marshal(body)
	require.NoError(a.t, err)
	r := httptest.NewRequest(method, path, bytes.NewReader(data))
	r.TLS = &tls.ConnectionState{}
	if a.client != nil {
		r.TLS.PeerCertificates = []*x509.Certificate{a.client}
	}
	w := httptest.NewRecorder()
	a.fake.ServeHTTP(w, r)
	return w
}

func (a *account) ask(method, path string, body any) (int, map[string]any) {
	a.t.Helper()
	w := a.raw(method, ca+path, body)
	var answer map[string]any
	require.NoError(a.t, json.Unmarshal(w.Body.Bytes(), &answer), w.Body.String())
	return w.Code, answer
}

func order(t *testing.T) map[string]any {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	return map[string]any{
		"profileId": entrust.Profile, "requiredFormat": map[string]string{"format": "X509"}, "csr": base64.StdEncoding.EncodeToString(der),
		"subjectAltNames":                   []any{map[string]string{"type": "dNSName", "value": "www.example.com"}},
		"optionalCertificateRequestDetails": map[string]string{"subjectDn": "CN=www.example.com,O=Example", "validityPeriod": "P90D"},
	}
}

func parse(t *testing.T, text any) *x509.Certificate {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(text.(string))
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func TestWhoMayAsk(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	assert.Equal(t, http.StatusOK, a.raw("GET", ca, nil).Code)
	assert.Equal(t, http.StatusNotFound, a.raw("GET", entrust.Base+"/v1/certificate-authorities/odd", nil).Code)
	assert.Equal(t, http.StatusNotFound, a.raw("GET", ca+"/enrollments/e-1", nil).Code, "there is no such question")
	client := a.client
	a.client = nil
	assert.Equal(t, http.StatusForbidden, a.raw("GET", ca, nil).Code)
	a.client = client
	a.fake.Spoil()
	assert.Equal(t, http.StatusForbidden, a.raw("GET", ca, nil).Code)
}

// The answer to an enrollment is its certificate, and says ACCEPTED; data is shown
// elsewhere only if it is asked for.
func TestAnEnrollmentAndItsFields(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	status, answer := a.ask("POST", "/enrollments", order(t))
	require.Equal(t, http.StatusOK, status, answer)
	assert.Equal(t, "EnrollmentResponse", answer["type"])
	enrollment := answer["enrollment"].(map[string]any)
	assert.Equal(t, "ACCEPTED", enrollment["status"])
	leaf := parse(t, enrollment["body"])
	assert.Equal(t, []string{"www.example.com"}, leaf.DNSNames)
	assert.Equal(t, "www.example.com", leaf.Subject.CommonName)
	assert.InDelta(t, 90*24, time.Until(leaf.NotAfter).Hours(), 1)
	assert.Len(t, enrollment["chain"], 2)
	serial := enrollment["serialNumber"].(string)

	_, answer = a.ask("GET", "/certificates/"+serial, nil)
	cert := answer["certificate"].(map[string]any)
	assert.Equal(t, "normal", cert["status"])
	assert.NotContains(t, cert, "certificateData")
	assert.Empty(t, answer["chain"])
	_, answer = a.ask("GET", "/certificates/"+serial+"?$fields=certificate.certificateData", nil)
	assert.True(t, leaf.Equal(parse(t, answer["certificate"].(map[string]any)["certificateData"])))
	_, answer = a.ask("GET", "", nil)
	assert.NotContains(t, answer["ca"], "certificate")
	_, answer = a.ask("GET", "?$fields=ca.certificate,ca.chain", nil)
	require.NoError(t, leaf.CheckSignatureFrom(parse(t, answer["ca"].(map[string]any)["certificate"])))
	_, answer = a.ask("GET", "/profiles/"+entrust.Profile, nil)
	assert.Equal(t, "ProfileResponse", answer["type"])

	a.fake.Set(entrust.Modes{NoChain: true, NoStatus: true, Word: "ISSUED", PEM: true})
	_, answer = a.ask("POST", "/enrollments", order(t))
	enrollment = answer["enrollment"].(map[string]any)
	assert.Equal(t, []any{}, enrollment["chain"])
	assert.Equal(t, "ISSUED", enrollment["status"])
	assert.Contains(t, enrollment["body"], "BEGIN CERTIFICATE")
	_, answer = a.ask("GET", "/certificates/"+serial, nil)
	assert.NotContains(t, answer["certificate"], "status")
}

// Without a body there is no serial number either, and no question about it.
func TestAnEnrollmentWithoutABody(t *testing.T) {
	a := newAccount(t, fakeca.Config{Approval: true})
	_, answer := a.ask("POST", "/enrollments", order(t))
	enrollment := answer["enrollment"].(map[string]any)
	assert.Equal(t, "PENDING", enrollment["status"])
	assert.NotContains(t, enrollment, "body")
	assert.NotContains(t, enrollment, "serialNumber")
	status, _ := a.ask("GET", "/certificates/"+a.fake.Core().Ledger(nil)[0].ID, nil)
	assert.Equal(t, http.StatusNotFound, status)
	a.fake.Set(entrust.Modes{Rejects: true})
	status, answer = a.ask("POST", "/enrollments", order(t))
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, "REJECTED", answer["enrollment"].(map[string]any)["status"])
	assert.Len(t, a.fake.Core().Ledger(nil), 1)
}

func TestWhatIsRefused(t *testing.T) {
	for code, change := range map[string]func(a *account, body map[string]any){
		"cagw-4042": func(_ *account, body map[string]any) { body["profileId"] = "odd" },
		"cagw-4002": func(_ *account, body map[string]any) { body["requiredFormat"] = map[string]string{"format": "DER"} },
		"cagw-4018": func(_ *account, body map[string]any) { body["csr"] = "-----BEGIN CERTIFICATE REQUEST-----" },
		"cagw-4003": func(_ *account, body map[string]any) {
			body["optionalCertificateRequestDetails"] = map[string]string{"validityPeriod": "90 days"}
		},
		"cagw-4035": func(a *account, _ map[string]any) { a.fake.Set(entrust.Modes{QuotaSpent: true}) },
	} {
		a := newAccount(t, fakeca.Config{})
		body := order(t)
		change(a, body)
		status, answer := a.ask("POST", "/enrollments", body)
		assert.Equal(t, 4, status/100)
		assert.Equal(t, "ErrorResponse", answer["type"])
		failure := answer["error"].(map[string]any)
		assert.Equal(t, code, failure["code"])
		data, err := json.Marshal(failure)
		require.NoError(t, err)
		assert.Contains(t, string(data), entrust.Secret, "more than a client should see")
	}
	a := newAccount(t, fakeca.Config{})
	a.fake.Core().Script(fakeca.Any, fakeca.Repeat(3, fakeca.Fault{Kind: fakeca.Refuse, Status: 429})...)
	for range 3 {
		status, answer := a.ask("POST", "/enrollments", order(t))
		assert.Equal(t, 429, status)
		assert.Equal(t, "TooManyRequests", answer["error"].(map[string]any)["code"])
	}
	a.fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() { a.raw("POST", ca+"/enrollments", order(t)) })
	assert.Len(t, a.fake.Core().Ledger(nil), 1, "the connection ends after issuing")
}

func TestPagesOfEvents(t *testing.T) {
	now := time.Now()
	a := newAccount(t, fakeca.Config{Now: func() time.Time { return now }})
	for range 120 {
		a.ask("POST", "/enrollments", order(t))
	}
	since := now.Add(-time.Minute).UTC().Format(time.RFC3339)
	var counts []int
	for next := 0; ; {
		_, answer := a.ask("GET", "/certificate-events?startDate="+since+"&preferredPageSize=1000&$fields=events.certificate&nextPageIndex="+strconv.Itoa(next), nil)
		events := answer["events"].([]any)
		counts = append(counts, len(events))
		parse(t, events[0].(map[string]any)["certificate"])
		if answer["morePages"] == false {
			break
		}
		next = int(answer["nextPageIndex"].(float64))
	}
	assert.Equal(t, []int{50, 50, 20}, counts)
	_, answer := a.ask("GET", "/certificate-events?startDate="+since, nil)
	assert.NotContains(t, answer["events"].([]any)[0], "certificate")
	_, answer = a.ask("GET", "/certificate-events?startDate="+now.Add(time.Hour).UTC().Format(time.RFC3339), nil)
	assert.Empty(t, answer["events"])
	status, _ := a.ask("GET", "/certificate-events", nil)
	assert.Equal(t, http.StatusBadRequest, status)
}

func TestActions(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	_, answer := a.ask("POST", "/enrollments", order(t))
	path := "/certificates/" + answer["enrollment"].(map[string]any)["serialNumber"].(string)
	act := func() (int, any) {
		status, answer := a.ask("POST", path+"/actions", map[string]any{"action": map[string]string{"type": "RevokeAction", "reason": "superseded"}})
		return status, answer["action"].(map[string]any)["status"]
	}
	a.fake.Set(entrust.Modes{ActionStatus: "ACCEPTED"})
	status, word := act()
	assert.Equal(t, []any{http.StatusAccepted, "ACCEPTED"}, []any{status, word})
	a.fake.Set(entrust.Modes{})
	status, word = act()
	assert.Equal(t, []any{http.StatusCreated, "COMPLETED"}, []any{status, word})
	status, word = act()
	assert.Equal(t, []any{http.StatusOK, "REJECTED"}, []any{status, word}, "in an answer that is a success")
	_, answer = a.ask("GET", path, nil)
	assert.Equal(t, "Revoked", answer["certificate"].(map[string]any)["status"])
	assert.Contains(t, answer["certificate"], "revocationInfo")
	status, _ = a.ask("POST", path+"/actions", map[string]any{"action": map[string]string{"type": "ReissueAction"}})
	assert.Equal(t, http.StatusBadRequest, status)
}

// The gateway waits a minute for the CA behind it.
func TestASlowEnrollment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, fakeca.Config{})
		a.fake.Set(entrust.Modes{Slow: 70 * time.Second})
		began := time.Now()
		status, _ := a.ask("POST", "/enrollments", order(t))
		assert.Equal(t, http.StatusOK, status)
		assert.Equal(t, 70*time.Second, time.Since(began))
	})
}
