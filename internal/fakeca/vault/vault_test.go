package vault_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mount = "/v1/" + vault.Mount

// account is a client of the API that knows nothing but paths and JSON.
type account struct {
	t     *testing.T
	fake  *vault.Server
	token string
	space string
}

func newAccount(t *testing.T, c fakeca.Config) *account {
	return &account{t: t, fake: vault.New(c), token: vault.Token}
}

func (a *account) ask(method, path string, body any) (int, map[string]any) {
	a.t.Helper()
	data, err := json.Marshal(body)
	require.NoError(a.t, err)
	r := httptest.NewRequest(method, path, bytes.NewReader(data))
	if a.token != "" {
		r.Header.Set("X-Vault-Token", a.token)
	}
	if a.space != "" {
		r.Header.Set("X-Vault-Namespace", a.space)
	}
	w := httptest.NewRecorder()
	a.fake.ServeHTTP(w, r)
	var answer map[string]any
	require.NoError(a.t, json.Unmarshal(w.Body.Bytes(), &answer), w.Body.String())
	return w.Code, answer
}

// data is what an answer holds that is well.
func (a *account) data(method, path string, body any) map[string]any {
	a.t.Helper()
	status, answer := a.ask(method, path, body)
	require.Equal(a.t, http.StatusOK, status, answer)
	return answer["data"].(map[string]any)
}

func order(t *testing.T) map[string]any {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	return map[string]any{
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), "common_name": "www.example.com", "alt_names": "example.com,www.example.com",
		"ip_sans": "192.0.2.1", "ttl": "24h",
	}
}

func parse(t *testing.T, text any) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode([]byte(text.(string)))
	require.Empty(t, rest)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return cert
}

func TestWhoMayAsk(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	for token, text := range map[string]string{"": "missing client token", "hvs.odd": "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"} {
		a.token = token
		status, answer := a.ask("GET", mount+"/roles/"+vault.Role, nil)
		assert.Equal(t, http.StatusForbidden, status)
		assert.Equal(t, []any{text}, answer["errors"])
	}
	a.token = ""
	status, answer := a.ask("POST", "/v1/auth/approle/login", map[string]string{"role_id": vault.RoleID, "secret_id": "odd"})
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Equal(t, []any{"invalid role or secret ID"}, answer["errors"])
	_, answer = a.ask("PUT", "/v1/auth/approle/login", map[string]string{"role_id": vault.RoleID, "secret_id": vault.SecretID})
	auth := answer["auth"].(map[string]any)
	assert.InDelta(t, 1200, auth["lease_duration"], 0)
	a.token = auth["client_token"].(string)
	assert.Equal(t, a.token, a.data("GET", "/v1/auth/token/lookup-self", nil)["id"], "more than a client should show")
	a.fake.Logout()
	status, _ = a.ask("GET", "/v1/auth/token/lookup-self", nil)
	assert.Equal(t, http.StatusForbidden, status)
	a.token = vault.Token
	a.fake.Set(vault.Modes{Denied: []string{"revoke"}})
	status, answer = a.ask("POST", mount+"/revoke", nil)
	assert.Equal(t, http.StatusForbidden, status)
	assert.Equal(t, []any{"1 error occurred:\n\t* permission denied\n\n"}, answer["errors"])
	may := a.data("POST", "/v1/sys/capabilities-self", map[string]any{"paths": []string{vault.Mount + "/revoke", vault.Mount + "/certs"}})
	assert.Equal(t, []any{"deny"}, may[vault.Mount+"/revoke"])
	assert.Contains(t, may[vault.Mount+"/certs"], "list")
	assert.Equal(t, []any{"deny"}, a.data("PUT", "/v1/sys/capabilities-self", map[string]string{"path": vault.Mount + "/revoke"})["capabilities"])
	a.fake.Spoil()
	status, _ = a.ask("GET", "/v1/auth/token/lookup-self", nil)
	assert.Equal(t, http.StatusForbidden, status)
}

func TestASignatureAndItsFields(t *testing.T) {
	a := newAccount(t, fakeca.Config{Approval: true, Delay: time.Hour})
	data := a.data("PUT", mount+"/sign/"+vault.Role, order(t))
	leaf := parse(t, data["certificate"])
	assert.Equal(t, []string{"example.com", "www.example.com"}, leaf.DNSNames)
	assert.Equal(t, "192.0.2.1", leaf.IPAddresses[0].String())
	assert.Equal(t, "www.example.com", leaf.Subject.CommonName)
	assert.InDelta(t, 24, time.Until(leaf.NotAfter).Hours(), 1)
	chain := data["ca_chain"].([]any)
	assert.Len(t, chain, 2)
	assert.Equal(t, chain[0], data["issuing_ca"])
	require.NoError(t, leaf.CheckSignatureFrom(parse(t, data["issuing_ca"])))
	serial := data["serial_number"].(string)
	assert.Regexp(t, "^([0-9a-f]{2}:){15}[0-9a-f]{2}$", serial)
	assert.Equal(t, strings.ReplaceAll(serial, ":", ""), leaf.SerialNumber.Text(16))

	kept := a.data("GET", mount+"/cert/"+strings.ReplaceAll(serial, ":", "-"), nil)
	assert.Equal(t, data["certificate"], kept["certificate"])
	assert.NotContains(t, kept, "ca_chain", "it is kept alone")
	assert.Zero(t, kept["revocation_time"])
	issuer := a.data("GET", mount+"/issuer/default/json", nil)
	assert.Equal(t, data["issuing_ca"], issuer["certificate"])
	assert.Equal(t, []any{issuer["issuer_id"]}, a.data("LIST", mount+"/issuers", nil)["keys"])
	require.NoError(t, a.fake.Core().Rotate())
	assert.Len(t, a.data("GET", mount+"/issuers?list=true", nil)["keys"], 2)
	assert.NotEqual(t, data["issuing_ca"], a.data("GET", mount+"/issuer/default/json", nil)["certificate"])
	assert.Equal(t, data["issuing_ca"], a.data("GET", mount+"/issuer/"+issuer["issuer_id"].(string)+"/json", nil)["certificate"])

	body := order(t)
	body["ttl"], body["exclude_cn_from_sans"], body["common_name"] = 3600, true, "other.example.com"
	a.fake.Set(vault.Modes{NoChain: true, MaxTTL: time.Minute})
	status, answer := a.ask("POST", mount+"/issuer/default/sign/"+vault.Role, body)
	require.Equal(t, http.StatusOK, status)
	assert.Len(t, answer["warnings"], 1)
	data = answer["data"].(map[string]any)
	assert.NotContains(t, data, "ca_chain")
	assert.NotContains(t, parse(t, data["certificate"]).DNSNames, "other.example.com")
}

func TestWhatIsRefused(t *testing.T) {
	for text, change := range map[string]func(a *account, body map[string]any) string{
		"unknown role":           func(*account, map[string]any) string { return mount + "/sign/odd" },
		"no handler for route":   func(*account, map[string]any) string { return "/v1/odd/sign/" + vault.Role },
		"could not be parsed":    func(_ *account, body map[string]any) string { body["csr"] = "odd"; return "" },
		"converting input":       func(_ *account, body map[string]any) string { body["ttl"] = "a year"; return "" },
		"format":                 func(_ *account, body map[string]any) string { body["format"] = "odd"; return "" },
		"Vault is sealed":        func(a *account, _ map[string]any) string { a.fake.Set(vault.Modes{Sealed: true}); return "" },
		`"pki-int/issuing/sign/`: func(a *account, _ map[string]any) string { a.space = "odd"; return "" },
	} {
		a := newAccount(t, fakeca.Config{})
		body, path := order(t), mount+"/sign/"+vault.Role
		if other := change(a, body); other != "" {
			path = other
		}
		status, answer := a.ask("POST", path, body)
		assert.GreaterOrEqual(t, status, 400)
		require.Len(t, answer["errors"], 1, text)
		assert.Contains(t, answer["errors"].([]any)[0], text)
		assert.Empty(t, a.fake.Core().Ledger(nil))
	}
	a := newAccount(t, fakeca.Config{})
	a.fake.Set(vault.Modes{ControlGroup: true})
	_, answer := a.ask("POST", mount+"/sign/"+vault.Role, order(t))
	assert.Nil(t, answer["data"])
	assert.NotNil(t, answer["wrap_info"])
	assert.Empty(t, a.fake.Core().Ledger(nil))
	a.fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Refuse, Status: 429, RetryAfter: time.Minute}, fakeca.Fault{Kind: fakeca.Lost})
	status, answer := a.ask("POST", mount+"/sign/"+vault.Role, order(t))
	assert.Equal(t, http.StatusTooManyRequests, status)
	assert.Contains(t, answer["errors"].([]any)[0], "rate limit quota exceeded")
	a.fake.Set(vault.Modes{})
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() { a.ask("POST", mount+"/sign/"+vault.Role, order(t)) })
	assert.Len(t, a.fake.Core().Ledger(nil), 1, "the connection ends after signing")
}

func TestTheListOfCertificates(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	nothing := func(method, path string) {
		t.Helper()
		status, answer := a.ask(method, path, nil)
		assert.Equal(t, http.StatusNotFound, status)
		assert.Equal(t, []any{}, answer["errors"])
	}
	nothing("LIST", mount+"/certs")
	var serials []string
	for range 5 {
		serials = append(serials, a.data("POST", mount+"/sign/"+vault.Role, order(t))["serial_number"].(string))
	}
	slices.Sort(serials)
	keys := func(path string) (list []string) {
		for _, key := range a.data("GET", path, nil)["keys"].([]any) {
			list = append(list, key.(string))
		}
		return list
	}
	assert.Equal(t, serials, keys(mount+"/certs?list=true&limit=2"), "in their own order, all of them")
	a.fake.Set(vault.Modes{Pages: true})
	assert.Equal(t, serials[:2], keys(mount+"/certs?list=true&limit=2"))
	assert.Equal(t, serials[2:4], keys(mount+"/certs?list=true&limit=2&after="+strings.ReplaceAll(serials[1], ":", "-")))
	nothing("GET", mount+"/certs?list=true&limit=2&after="+strings.ReplaceAll(serials[4], ":", "-"))
	a.fake.Set(vault.Modes{NoStore: true})
	nothing("LIST", mount+"/certs")
	nothing("GET", mount+"/cert/"+serials[0])
	nothing("GET", mount+"/roles/odd")
}

func TestARevocation(t *testing.T) {
	now := time.Now()
	a := newAccount(t, fakeca.Config{Now: func() time.Time { return now }})
	serial := a.data("POST", mount+"/sign/"+vault.Role, order(t))["serial_number"].(string)
	first := a.data("POST", mount+"/revoke", map[string]string{"serial_number": serial})
	assert.Equal(t, "revoked", first["state"])
	now = now.Add(time.Hour)
	assert.Equal(t, first, a.data("POST", mount+"/revoke", map[string]string{"serial_number": serial}), "it stays as it was")
	assert.Equal(t, first["revocation_time"], a.data("GET", mount+"/cert/"+serial, nil)["revocation_time"])
	now = now.Add(30 * 24 * time.Hour)
	_, answer := a.ask("POST", mount+"/revoke", map[string]string{"serial_number": serial})
	assert.Nil(t, answer["data"])
	assert.Contains(t, answer["warnings"].([]any)[0], "already expired")
	status, answer := a.ask("POST", mount+"/revoke", map[string]string{"serial_number": "0a:ff"})
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Contains(t, answer["errors"].([]any)[0], "not found")
}

func TestHealth(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	a.token = ""
	status, answer := a.ask("GET", "/v1/sys/health", nil)
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, false, answer["sealed"])
	a.fake.Set(vault.Modes{Sealed: true})
	status, _ = a.ask("GET", "/v1/sys/health", nil)
	assert.Equal(t, http.StatusServiceUnavailable, status)
	status, answer = a.ask("GET", "/v1/sys/health?sealedcode=200", nil)
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, true, answer["sealed"])
	a.space = "teams"
	status, _ = a.ask("GET", "/v1/sys/health", nil)
	assert.Equal(t, http.StatusBadRequest, status, "in the root namespace alone")
}
