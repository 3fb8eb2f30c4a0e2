package sectigo_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/sectigo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// account is a client of the API that knows nothing but paths and JSON.
type account struct {
	t    *testing.T
	fake *sectigo.Server
}

func newAccount(t *testing.T, c fakeca.Config) *account { return &account{t: t, fake: sectigo.New(c)} }

func (a *account) ask(method, path string, body any) (status int, header http.Header, raw []byte) {
	a.t.Helper()
	data, err := json.Marshal(body)
	require.NoError(a.t, err)
	r := httptest.NewRequest(method, sectigo.Base+path, bytes.NewReader(data))
	for name, value := range map[string]string{"login": sectigo.Login, "password": sectigo.Password, "customerUri": sectigo.CustomerURI} {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	a.fake.ServeHTTP(w, r)
	return w.Code, w.Header(), w.Body.Bytes()
}

func (a *account) object(method, path string, body any) (int, map[string]any) {
	a.t.Helper()
	status, _, raw := a.ask(method, path, body)
	var answer map[string]any
	if len(raw) > 0 {
		require.NoError(a.t, json.Unmarshal(raw, &answer), string(raw))
	}
	return status, answer
}

func csr(t *testing.T) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "www.example.com"}}, key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func order(t *testing.T) map[string]any {
	return map[string]any{
		"orgId": sectigo.Organization, "csr": csr(t), "certType": sectigo.Profile, "term": 90, "subjAltNames": "www.example.com, example.com",
		"comments": "ours", "externalRequester": "a+b@example.com",
	}
}

func (a *account) place() string {
	a.t.Helper()
	status, answer := a.object("POST", "/ssl/v1/enroll", order(a.t))
	require.Equal(a.t, http.StatusOK, status, answer)
	require.Len(a.t, answer, 2, "an id and a renewal id, never a certificate")
	require.NotEmpty(a.t, answer["renewId"])
	return fmt.Sprintf("%.0f", answer["sslId"])
}

func subjects(t *testing.T, data []byte) (list []string) {
	t.Helper()
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return list
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		list, data = append(list, cert.Subject.CommonName), rest
	}
}

func TestRequestedUntilApproved(t *testing.T) {
	now := time.Now()
	a := newAccount(t, fakeca.Config{Approval: true, Delay: time.Hour, Now: func() time.Time { return now }})
	id := a.place()
	word := func() any { _, answer := a.object("GET", "/ssl/v1/"+id, nil); return answer["status"] }
	now = now.Add(100 * time.Hour)
	assert.Equal(t, "Requested", word())
	status, _ := a.object("POST", "/ssl/v1/approve/"+id, map[string]any{"message": "m"})
	assert.Equal(t, 204, status)
	assert.Equal(t, "Applied", word())
	status, answer := a.object("GET", "/ssl/v1/collect/"+id+"?format=x509", nil)
	assert.Equal(t, 400, status)
	assert.Equal(t, -183.0, answer["code"])
	now = now.Add(time.Hour)
	assert.Equal(t, "Issued", word())
	other := a.place()
	status, _ = a.object("POST", "/ssl/v1/decline/"+other, map[string]any{"message": "m"})
	assert.Equal(t, 204, status)
	_, answer = a.object("GET", "/ssl/v1/"+other, nil)
	assert.Equal(t, "Declined", answer["status"])
	now = now.Add(91 * 24 * time.Hour)
	assert.Equal(t, "Expired", word())
}

// Both paths, every format, and the order of the chain in each.
func TestEveryFormat(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	id := a.place()
	root, issuing, leaf := "Fake Sectigo Root", "Fake Sectigo Issuing 1", "www.example.com"
	for format, want := range map[string][]string{
		"x509": {root, issuing, leaf}, "pem": {root, issuing, leaf}, "x509R": {leaf, issuing, root}, "x509CO": {leaf}, "pemco": {leaf},
		"pemia": {leaf, issuing}, "x509IO": {root, issuing}, "x509IOR": {issuing, root},
	} {
		for _, path := range []string{"/ssl/v1/collect/" + id + "?format=" + format, "/ssl/v1/collect/" + id + "/" + format} {
			status, header, raw := a.ask("GET", path, nil)
			assert.Equal(t, 200, status)
			assert.Equal(t, "application/octet-stream", header.Get("Content-Type"))
			assert.NotEmpty(t, header.Get("Content-Disposition"))
			assert.Equal(t, want, subjects(t, raw), path)
		}
	}
	for _, path := range []string{"", "?format=base64"} {
		_, _, raw := a.ask("GET", "/ssl/v1/collect/"+id+path, nil)
		block, _ := pem.Decode(raw)
		require.NotNil(t, block, "PKCS#7 is the default")
		assert.Equal(t, "PKCS7", block.Type)
	}
	_, _, raw := a.ask("GET", "/ssl/v1/collect/"+id+"?format=bin", nil)
	message, err := pkcs7.Parse(raw)
	require.NoError(t, err)
	assert.Len(t, message.Certificates, 3)
	status, answer := a.object("GET", "/ssl/v1/collect/"+id+"?format=odd", nil)
	assert.Equal(t, 400, status)
	assert.Equal(t, -126.0, answer["code"])
}

func TestEveryWayOfNotReady(t *testing.T) {
	a := newAccount(t, fakeca.Config{Delay: time.Hour})
	id := a.place()
	for mode, code := range map[string]float64{sectigo.NotCollectable: -183, sectigo.Processing: -1400, sectigo.NotFoundYet: -103} {
		a.fake.Set(sectigo.Modes{NotReady: mode})
		status, answer := a.object("GET", "/ssl/v1/collect/"+id, nil)
		assert.Equal(t, 400, status)
		assert.Equal(t, code, answer["code"])
	}
	a.fake.Set(sectigo.Modes{NotReady: sectigo.Empty})
	status, _, raw := a.ask("GET", "/ssl/v1/collect/"+id, nil)
	assert.Equal(t, 200, status)
	assert.Empty(t, raw)
	a = newAccount(t, fakeca.Config{})
	id = a.place()
	a.fake.Set(sectigo.Modes{AppliedForIssued: true})
	_, answer := a.object("GET", "/ssl/v1/"+id, nil)
	assert.Equal(t, "Applied", answer["status"])
	status, _, _ = a.ask("GET", "/ssl/v1/collect/"+id, nil)
	assert.Equal(t, 200, status, "applied, and collectable")
}

func TestReplaceKeepsTheIDAndFirstTheOldCertificate(t *testing.T) {
	now := time.Now()
	a := newAccount(t, fakeca.Config{Delay: time.Hour, Now: func() time.Time { return now }})
	id := a.place()
	now = now.Add(time.Hour)
	collect := func() string {
		_, _, raw := a.ask("GET", "/ssl/v1/collect/"+id+"?format=x509CO", nil)
		return string(raw)
	}
	old := collect()
	status, _ := a.object("POST", "/ssl/v1/replace/"+id, map[string]any{"csr": csr(t), "reason": "r", "subjectAlternativeNames": []string{"www.example.com"}})
	assert.Equal(t, 204, status)
	assert.Equal(t, old, collect())
	now = now.Add(time.Hour)
	assert.NotEqual(t, old, collect())
	assert.Len(t, a.fake.Core().Ledger(nil), 1)
	status, answer := a.object("POST", "/ssl/v1/renewById/"+id, map[string]any{})
	assert.Equal(t, 200, status)
	assert.NotEqual(t, id, fmt.Sprintf("%.0f", answer["sslId"]))
	assert.Len(t, a.fake.Core().Ledger(nil), 2)
}

func TestRevoke(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	id := a.place()
	serial := a.fake.Core().Ledger(nil)[0].Newest().Leaf.SerialNumber.Text(16)
	status, answer := a.object("POST", "/ssl/v1/revoke/"+id, map[string]any{"reasonCode": 2, "reason": "r"})
	assert.Equal(t, 400, status, answer)
	status, _ = a.object("POST", "/ssl/v1/revoke/serial/"+strings.ToUpper(serial), map[string]any{"reasonCode": 4, "reason": "r"})
	assert.Equal(t, 204, status)
	status, answer = a.object("POST", "/ssl/v1/revoke/"+id, map[string]any{"reasonCode": 4, "reason": "r"})
	assert.Equal(t, 400, status)
	assert.Equal(t, -159.0, answer["code"])
	_, answer = a.object("GET", "/ssl/v1/collect/"+id, nil)
	assert.Equal(t, -110.0, answer["code"])
	_, answer = a.object("GET", "/ssl/v1/"+id, nil)
	assert.Equal(t, "Revoked", answer["status"])
	_, answer = a.object("GET", "/ssl/v1/1", nil)
	assert.Equal(t, -124.0, answer["code"])
	waiting := newAccount(t, fakeca.Config{Approval: true})
	_, answer = waiting.object("POST", "/ssl/v1/revoke/"+waiting.place(), map[string]any{"reasonCode": 4, "reason": "r"})
	assert.Equal(t, -102.0, answer["code"])
}

func TestTheListHasThinRows(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	for range 5 {
		a.place()
	}
	list := func(query string) (string, []map[string]any) {
		_, header, raw := a.ask("GET", "/ssl/v1?"+query, nil)
		var rows []map[string]any
		require.NoError(t, json.Unmarshal(raw, &rows))
		return header.Get("X-Total-Count"), rows
	}
	total, rows := list("commonName=www.example.com&size=2&position=4")
	assert.Equal(t, "5", total)
	require.Len(t, rows, 1)
	assert.ElementsMatch(t, []string{"sslId", "commonName", "subjectAlternativeNames", "serialNumber"}, keys(rows[0]))
	_, rows = list("externalRequester=" + url.QueryEscape("a+b@example.com"))
	assert.Len(t, rows, 5)
	for _, none := range []string{"externalRequester=other@example.com", "commonName=x", "subjectAlternativeName=x", "status=Requested", "orgId=1"} {
		_, rows = list(none)
		assert.Empty(t, rows, none)
	}
}

func keys(m map[string]any) (list []string) {
	for key := range m {
		list = append(list, key)
	}
	return list
}

func TestDetailsAndDates(t *testing.T) {
	at := time.Date(2027, 3, 9, 10, 11, 12, 0, time.UTC)
	a := newAccount(t, fakeca.Config{Now: func() time.Time { return at }})
	id := a.place()
	_, answer := a.object("GET", "/ssl/v1/"+id, nil)
	assert.Equal(t, "03/09/2027", answer["requested"])
	assert.Equal(t, "ours", answer["comments"])
	assert.Equal(t, "a+b@example.com", answer["externalRequester"])
	_, answer = a.object("GET", "/ssl/v1/"+id+"?dateFormat=x", nil)
	assert.Equal(t, "2027-03-09T10:11:12Z", answer["requested"])
}

func TestRefusals(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	for code, change := range map[float64]func(b map[string]any){
		-37:  func(b map[string]any) { b["orgId"] = 1 },
		-138: func(b map[string]any) { b["csr"] = "x" },
		-39:  func(b map[string]any) { b["certType"] = 1 },
		-36:  func(b map[string]any) { b["term"] = 91 },
		-3:   func(b map[string]any) { b["externalRequester"] = "no address" },
	} {
		body := order(t)
		change(body)
		status, answer := a.object("POST", "/ssl/v1/enroll", body)
		assert.Equal(t, 400, status)
		assert.Equal(t, code, answer["code"])
	}
	for _, c := range []struct {
		modes sectigo.Modes
		code  float64
	}{{sectigo.Modes{Mandatory: "Cost centre"}, -62}, {sectigo.Modes{UnknownDomains: true}, -737}, {sectigo.Modes{BackendDown: 1}, -195}} {
		a.fake.Set(c.modes)
		_, answer := a.object("POST", "/ssl/v1/enroll", order(t))
		assert.Equal(t, c.code, answer["code"])
	}
	assert.Empty(t, a.fake.Core().Ledger(nil))
	a.place() // -195 was for one order
}

func TestTheThreeWaysOfLoggingIn(t *testing.T) {
	fake := sectigo.New(fakeca.Config{})
	server := httptest.NewUnstartedServer(fake)
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	defer server.Close()
	ask := func(client *http.Client, base string, header map[string]string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+base+"/ssl/v1/types", nil)
		require.NoError(t, err)
		for name, value := range header {
			r.Header.Set(name, value)
		}
		answer, err := client.Do(r)
		require.NoError(t, err)
		defer answer.Body.Close()
		_, _ = io.Copy(io.Discard, answer.Body)
		return answer.StatusCode
	}
	plain := server.Client()
	transport := plain.Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.Certificates = []tls.Certificate{fake.Client()}
	defer transport.CloseIdleConnections()
	certified := &http.Client{Transport: transport}
	who := map[string]string{"login": sectigo.Login, "customerUri": sectigo.CustomerURI}
	with := map[string]string{"login": sectigo.Login, "customerUri": sectigo.CustomerURI, "password": sectigo.Password}
	assert.Equal(t, 200, ask(plain, sectigo.Base, with))
	assert.Equal(t, 401, ask(plain, sectigo.Base, who))
	assert.Equal(t, 401, ask(plain, sectigo.PrivateBase, who))
	assert.Equal(t, 200, ask(certified, sectigo.PrivateBase, who))
	assert.Equal(t, 401, ask(certified, sectigo.PrivateBase, with), "a password belongs to the other base")
	assert.Equal(t, 401, ask(certified, sectigo.Base, who))

	token := func(secret string) (int, string) {
		answer, err := plain.PostForm(server.URL+sectigo.TokenPath, url.Values{"grant_type": {"client_credentials"}, "client_id": {sectigo.ClientID}, "client_secret": {secret}})
		require.NoError(t, err)
		defer answer.Body.Close()
		var body struct {
			Token string `json:"access_token"`
		}
		require.NoError(t, json.NewDecoder(answer.Body).Decode(&body))
		return answer.StatusCode, body.Token
	}
	status, _ := token("wrong")
	assert.Equal(t, 401, status)
	status, good := token(sectigo.ClientSecret)
	assert.Equal(t, 200, status)
	assert.Equal(t, 200, ask(plain, sectigo.Base, map[string]string{"Authorization": "Bearer " + good}))
	fake.ForgetTokens()
	assert.Equal(t, 401, ask(plain, sectigo.Base, map[string]string{"Authorization": "Bearer " + good}))
}

func TestProofOfNames(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	a.fake.Set(sectigo.Modes{Unproven: true})
	id := a.place()
	_, answer := a.object("GET", "/ssl/v1/"+id+"/dcv", nil)
	assert.Len(t, answer["instructions"], 2)
	assert.Equal(t, "Awaiting Validation", answer["dcvLog"].(map[string]any)["log"].([]any)[0].(map[string]any)["dcvStatus"])
	status, _ := a.object("POST", "/ssl/v1/"+id+"/dcv/recheck", nil)
	assert.Equal(t, 202, status)
	_, answer = a.object("GET", "/ssl/v1/"+id, nil)
	assert.Equal(t, "Applied", answer["status"])
	require.NoError(t, a.fake.Prove(id))
	_, _ = a.object("POST", "/ssl/v1/"+id+"/dcv/recheck", nil)
	_, answer = a.object("GET", "/ssl/v1/"+id, nil)
	assert.Equal(t, "Issued", answer["status"])
	_, answer = a.object("GET", "/ssl/v1/"+id+"/dcv", nil)
	assert.Empty(t, answer["instructions"])
}

// The connection ends after the order was made.
func TestTheAnswerIsLostAfterTheOrder(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	server := httptest.NewServer(a.fake)
	defer server.Close()
	a.fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
	data, err := json.Marshal(order(t))
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+sectigo.Base+"/ssl/v1/enroll", bytes.NewReader(data))
	require.NoError(t, err)
	r.Header = http.Header{"Login": {sectigo.Login}, "Password": {sectigo.Password}, "Customeruri": {sectigo.CustomerURI}}
	answer, err := http.DefaultClient.Do(r)
	if err == nil {
		_, err = io.ReadAll(answer.Body)
	}
	require.Error(t, err)
	assert.Len(t, a.fake.Core().Ledger(nil), 1)
}
