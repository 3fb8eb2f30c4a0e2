package globalsign_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/globalsign"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// account is a client of the API that knows nothing but paths and JSON. It is behind
// a server that ends TLS.
type account struct {
	t      *testing.T
	fake   *globalsign.Server
	token  string
	serial string
	kind   string
}

func newAccount(t *testing.T, c fakeca.Config) *account {
	a := &account{t: t, fake: globalsign.New(c), serial: "0a1b2c", kind: "application/json;charset=utf-8"}
	a.login()
	return a
}

func (a *account) ask(method, path string, body any) *httptest.ResponseRecorder {
	a.t.Helper()
	data, err := json.Marshal(body)
	require.NoError(a.t, err)
	r := httptest.NewRequest(method, "https://fake.example"+globalsign.Base+path, bytes.NewReader(data))
	r.TLS = nil
	r.Header.Set("Content-Type", a.kind)
	r.Header.Set("X-SSL-Client-Serial", a.serial)
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	w := httptest.NewRecorder()
	a.fake.ServeHTTP(w, r)
	return w
}

func (a *account) login() int {
	w := a.ask("POST", "/login", map[string]string{"api_key": globalsign.APIKey, "api_secret": globalsign.APISecret})
	if w.Code == http.StatusOK {
		a.token = a.read(w)["access_token"].(string)
	}
	return w.Code
}

func (a *account) read(w *httptest.ResponseRecorder) (answer map[string]any) {
	a.t.Helper()
	require.NoError(a.t, json.Unmarshal(w.Body.Bytes(), &answer), w.Body.String())
	return answer
}

func key(t *testing.T, bare bool) string {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	kind := "CERTIFICATE REQUEST"
	var der []byte
	if bare {
		kind = "PUBLIC KEY"
		der, err = x509.MarshalPKIXPublicKey(private.Public())
	} else {
		der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"not-looked-at.example.com"}}, private)
	}
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func (a *account) body() map[string]any {
	return map[string]any{
		"validity":   map[string]any{"not_before": a.fake.Core().Now().Unix(), "not_after": 0},
		"subject_dn": map[string]any{"common_name": "www.example.com"},
		"san":        map[string]any{"dns_names": []string{"www.example.com"}},
		"public_key": key(a.t, false),
	}
}

func (a *account) place() string {
	a.t.Helper()
	w := a.ask("POST", "/certificates", a.body())
	require.Equal(a.t, http.StatusCreated, w.Code, w.Body)
	require.Empty(a.t, w.Body.Bytes())
	return path.Base(w.Header().Get("Location"))
}

func certificates(t *testing.T, text string) (list []*x509.Certificate) {
	for data := []byte(text); ; {
		block, rest := pem.Decode(data)
		if block == nil {
			return list
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		list, data = append(list, cert), rest
	}
}

// Both the certificate and the token are needed, and the token ends after ten
// minutes.
func TestWhoMayAsk(t *testing.T) {
	now := time.Now()
	a := newAccount(t, fakeca.Config{Now: func() time.Time { return now }})
	assert.Equal(t, http.StatusOK, a.ask("GET", "/validationpolicy", nil).Code)
	now = now.Add(10*time.Minute - time.Second)
	assert.Equal(t, http.StatusOK, a.ask("GET", "/validationpolicy", nil).Code)
	now = now.Add(time.Second)
	w := a.ask("GET", "/validationpolicy", nil)
	assert.Equal(t, http.StatusUnauthorized, w.Code)
	assert.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	assert.Equal(t, http.StatusOK, a.login())
	a.serial = "0A"
	assert.Equal(t, http.StatusUnauthorized, a.ask("GET", "/validationpolicy", nil).Code)
	assert.Equal(t, http.StatusUnauthorized, a.login())
	a.serial, a.kind = "0A1B2C", "application/json"
	assert.Equal(t, http.StatusUnsupportedMediaType, a.login())
	a.kind = "application/json; charset=UTF-8"
	assert.Equal(t, http.StatusOK, a.login())
	a.fake.Spoil()
	assert.Equal(t, http.StatusUnauthorized, a.login())
	assert.Equal(t, http.StatusUnauthorized, a.ask("GET", "/trustchain", nil).Code)
}

// The answer to an order is its serial number alone, which the certificate has.
func TestAnOrderUntilItIsIssued(t *testing.T) {
	now := time.Now()
	a := newAccount(t, fakeca.Config{Delay: 5 * time.Second, Now: func() time.Time { return now }})
	serial := a.place()
	assert.Regexp(t, "^[0-9A-F]+$", serial)
	for range 3 {
		w := a.ask("GET", "/certificates/"+serial, nil)
		assert.Equal(t, http.StatusAccepted, w.Code)
		assert.Empty(t, w.Body.Bytes())
	}
	now = now.Add(5 * time.Second)
	w := a.ask("GET", "/certificates/"+serial, nil)
	assert.Equal(t, http.StatusOK, w.Code)
	answer := a.read(w)
	assert.Equal(t, "ISSUED", answer["status"])
	assert.EqualValues(t, now.Unix(), answer["updated_at"])
	leaf := certificates(t, answer["certificate"].(string))
	require.Len(t, leaf, 1, "the leaf alone")
	assert.Equal(t, serial, fmt.Sprintf("%X", leaf[0].SerialNumber))
	assert.Equal(t, []string{"www.example.com"}, leaf[0].DNSNames, "names of the request are not looked at")
	assert.Equal(t, http.StatusNotFound, a.ask("GET", "/certificates/0A", nil).Code)
	// Only this is revoked.
	assert.Equal(t, http.StatusUnprocessableEntity, a.ask("PATCH", "/certificates/"+serial, map[string]string{"revocation_reason": "odd"}).Code)
	assert.Equal(t, http.StatusNoContent, a.ask("PATCH", "/certificates/"+serial, map[string]string{"revocation_reason": "superseded"}).Code)
	assert.Equal(t, "REVOKED", a.read(a.ask("GET", "/certificates/"+serial, nil))["status"])
	assert.Equal(t, http.StatusUnprocessableEntity, a.ask("PATCH", "/certificates/"+serial, map[string]string{"revocation_reason": "superseded"}).Code)
	for what, count := range map[string]float64{"issued": 1, "revoked": 1} {
		assert.Equal(t, count, a.read(a.ask("GET", "/counters/certificates/"+what, nil))["value"])
	}
	assert.Equal(t, 99_999.0, a.read(a.ask("GET", "/quotas/issuance", nil))["value"])
}

// What the policy does not take, field by field.
func TestWhatThePolicyRefuses(t *testing.T) {
	for field, c := range map[string]struct {
		modes  globalsign.Modes
		change func(a *account, body map[string]any)
	}{
		"validity.not_before": {change: func(a *account, body map[string]any) {
			body["validity"] = map[string]any{"not_before": time.Now().Unix() - 200}
		}},
		"validity.not_after": {change: func(a *account, body map[string]any) {
			body["validity"] = map[string]any{"not_before": time.Now().Unix(), "not_after": time.Now().Unix() + 60}
		}},
		"subject_dn.common_name": {modes: globalsign.Modes{Presence: map[string]string{"common_name": "FORBIDDEN"}}},
		"subject_dn.country":     {modes: globalsign.Modes{Presence: map[string]string{"country": "REQUIRED"}}},
		"subject_dn.email":       {change: func(a *account, body map[string]any) { body["subject_dn"] = map[string]any{"email": "x"} }},
		"san":                    {modes: globalsign.Modes{StaticNames: true}},
		"san.dns_names": {change: func(a *account, body map[string]any) {
			body["san"] = map[string]any{"dns_names": []string{"a.example.org"}}
		}, modes: globalsign.Modes{ClaimsNeeded: true}},
		"public_key":           {modes: globalsign.Modes{BareKey: true}},
		"signature":            {modes: globalsign.Modes{SignatureChosen: true}},
		"public_key_signature": {change: func(a *account, body map[string]any) { body["public_key_signature"] = "x" }},
		"csr":                  {change: func(a *account, body map[string]any) { body["csr"] = body["public_key"] }},
	} {
		t.Run(field, func(t *testing.T) {
			a := newAccount(t, fakeca.Config{})
			a.fake.Set(c.modes)
			body := a.body()
			if c.change != nil {
				c.change(a, body)
			}
			w := a.ask("POST", "/certificates", body)
			assert.Equal(t, http.StatusUnprocessableEntity, w.Code)
			assert.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			assert.Contains(t, a.read(w)["errors"], field)
			assert.Empty(t, a.fake.Core().Ledger(nil))
		})
	}
	a := newAccount(t, fakeca.Config{})
	a.fake.Set(globalsign.Modes{QuotaSpent: true})
	assert.Equal(t, http.StatusUnprocessableEntity, a.ask("POST", "/certificates", a.body()).Code)
	assert.Equal(t, 0.0, a.read(a.ask("GET", "/quotas/issuance", nil))["value"])
	a.fake.Set(globalsign.Modes{BareKey: true})
	body := a.body()
	body["public_key"] = key(t, true)
	assert.Equal(t, http.StatusCreated, a.ask("POST", "/certificates", body).Code)
	policy := a.read(a.ask("GET", "/validationpolicy", nil))
	assert.Equal(t, "PKCS8", policy["public_key"].(map[string]any)["key_format"])
	assert.Equal(t, 120.0, policy["validity"].(map[string]any)["not_before_negative_skew"])
}

func TestTheTrustChainRotates(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	chain := func() (names []string) {
		var list []string
		w := a.ask("GET", "/trustchain", nil)
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &list))
		for _, text := range list {
			names = append(names, certificates(t, text)[0].Subject.CommonName)
		}
		return names
	}
	assert.Equal(t, []string{"Fake GlobalSign Issuing 1", "Fake GlobalSign Root"}, chain())
	require.NoError(t, a.fake.Core().Rotate())
	a.fake.Set(globalsign.Modes{OldTrustChain: 2})
	assert.Equal(t, []string{"Fake GlobalSign Issuing 1", "Fake GlobalSign Root"}, chain(), "not shown at once")
	assert.Equal(t, []string{"Fake GlobalSign Issuing 2", "Fake GlobalSign Root"}, chain())
	a.fake.Set(globalsign.Modes{TurnedTrustChain: true})
	assert.Equal(t, []string{"Fake GlobalSign Root", "Fake GlobalSign Issuing 2"}, chain())
}

func TestPagesOfWhatWasIssued(t *testing.T) {
	now := time.Now()
	a := newAccount(t, fakeca.Config{Hidden: time.Minute, Now: func() time.Time { return now }})
	var serials []string
	for range 5 {
		serials = append(serials, a.place())
	}
	list := func(from, to time.Time, rest string) (found []string, total string) {
		w := a.ask("GET", "/stats/issued?from="+strconv.FormatInt(from.Unix(), 10)+"&to="+strconv.FormatInt(to.Unix(), 10)+rest, nil)
		var rows []map[string]any
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &rows))
		for _, row := range rows {
			assert.Len(t, row, 3)
			found = append(found, row["serial_number"].(string))
		}
		return found, w.Header().Get("Total-Count")
	}
	found, _ := list(now, now, "")
	assert.Empty(t, found, "too new")
	at := now
	now = now.Add(time.Minute)
	var all []string
	for page := 1; page <= 3; page++ {
		found, total := list(at, at, "&per_page=2&page="+strconv.Itoa(page))
		assert.Equal(t, "5", total)
		all = append(all, found...)
	}
	assert.Equal(t, serials, all)
	found, _ = list(at.Add(-time.Hour), at.Add(-time.Minute), "")
	assert.Empty(t, found)
	assert.Equal(t, http.StatusUnprocessableEntity, a.ask("GET", "/stats/issued?from=x", nil).Code)
}

func TestClaims(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	w := a.ask("POST", "/claims/domains/example.org", nil)
	assert.Equal(t, http.StatusCreated, w.Code)
	claim := a.read(w)
	id := claim["id"].(string)
	assert.Equal(t, id, path.Base(w.Header().Get("Location")))
	assert.NotEmpty(t, claim["token"])
	assert.InDelta(t, float64(time.Now().Add(30*24*time.Hour).Unix()), claim["assert_by"], 5)
	show := func() map[string]any { return a.read(a.ask("GET", "/claims/domains/"+id, nil)) }
	assert.Equal(t, "PENDING", show()["status"])
	assert.Equal(t, "example.org.", show()["domain"])
	assert.Equal(t, http.StatusCreated, a.ask("POST", "/claims/domains/"+id+"/dns", nil).Code)
	assert.Equal(t, "ERROR", show()["log"].([]any)[0].(map[string]any)["status"])
	assert.NotEqual(t, claim["token"], a.read(a.ask("POST", "/claims/domains/"+id+"/reassert", nil))["token"])
	a.fake.Publish("example.org")
	assert.Equal(t, http.StatusNoContent, a.ask("POST", "/claims/domains/"+id+"/http", nil).Code)
	assert.Equal(t, "VERIFIED", show()["status"])
	assert.Equal(t, http.StatusNotFound, a.ask("POST", "/claims/domains/"+id+"/odd", nil).Code)
	for status, count := range map[string]string{"": "2", "VERIFIED": "2", "PENDING": "0"} {
		assert.Equal(t, count, a.ask("GET", "/claims/domains?status="+status, nil).Header().Get("Total-Count"))
	}
	assert.Equal(t, http.StatusNoContent, a.ask("DELETE", "/claims/domains/"+id, nil).Code)
	assert.Equal(t, http.StatusNotFound, a.ask("GET", "/claims/domains/"+id, nil).Code)
}

// 404 for a moment, a place that is a path, a failure in the vendor's form, a page of
// a proxy, and an answer that is lost after the order was taken.
func TestOddAnswers(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	a.fake.Set(globalsign.Modes{UnknownAtFirst: 1, RelativeLocation: true})
	w := a.ask("POST", "/certificates", a.body())
	assert.Equal(t, "/v2/certificates/", w.Header().Get("Location")[:17])
	serial := path.Base(w.Header().Get("Location"))
	assert.Equal(t, http.StatusNotFound, a.ask("GET", "/certificates/"+serial, nil).Code)
	assert.Equal(t, http.StatusOK, a.ask("GET", "/certificates/"+serial, nil).Code)
	a.fake.Core().Script(fakeca.Status, fakeca.Fault{Kind: fakeca.Refuse, Status: 429}, fakeca.Fault{Kind: fakeca.Page})
	w = a.ask("GET", "/certificates/"+serial, nil)
	assert.Equal(t, 429, w.Code)
	assert.NotEmpty(t, a.read(w)["description"])
	w = a.ask("GET", "/certificates/"+serial, nil)
	assert.Equal(t, 502, w.Code)
	assert.Equal(t, "text/html", w.Header().Get("Content-Type"))
	a.fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() { a.ask("POST", "/certificates", a.body()) })
	assert.Len(t, a.fake.Core().Ledger(nil), 2)
	assert.Equal(t, http.StatusNotFound, a.ask("GET", "/odd", nil).Code)
	assert.Equal(t, map[string]string{"path": "/v2", "api_key": globalsign.APIKey, "api_secret": globalsign.APISecret}, maps.Clone(a.fake.Account()))
}
