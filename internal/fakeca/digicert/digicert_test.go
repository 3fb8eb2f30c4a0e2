package digicert_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/digicert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// account is a client of the API that knows nothing but paths and JSON.
type account struct {
	t    *testing.T
	fake *digicert.Server
	key  string
}

func newAccount(t *testing.T, c fakeca.Config) *account {
	return &account{t: t, fake: digicert.New(c), key: digicert.Key}
}

func (a *account) ask(method, path string, body any) (status int, header http.Header, answer map[string]any, raw []byte) {
	a.t.Helper()
	data, err := json.Marshal(body)
	require.NoError(a.t, err)
	r := httptest.NewRequest(method, digicert.Base+path, bytes.NewReader(data))
	r.Header.Set("X-DC-DEVKEY", a.key)
	w := httptest.NewRecorder()
	a.fake.ServeHTTP(w, r)
	raw = w.Body.Bytes()
	_ = json.Unmarshal(raw, &answer)
	return w.Code, w.Header(), answer, raw
}

func (a *account) order(reference string) map[string]any {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"ignored.example.com"}}, key)
	require.NoError(a.t, err)
	return map[string]any{
		"certificate": map[string]any{
			"common_name": "www.example.com", "dns_names": []string{"www.example.com", "example.com"}, "signature_hash": "sha256",
			"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
		},
		"organization": map[string]any{"id": digicert.Organization}, "order_validity": map[string]any{"days": 90}, "alternative_order_id": reference,
	}
}

func (a *account) place(reference string) map[string]any {
	a.t.Helper()
	status, _, answer, raw := a.ask("POST", "/order/certificate/ssl_basic", a.order(reference))
	require.Equal(a.t, http.StatusCreated, status, string(raw))
	return answer
}

func id(v any) string { return fmt.Sprintf("%.0f", v) }

func code(answer map[string]any) any {
	list, _ := answer["errors"].([]any)
	if len(list) == 0 {
		return nil
	}
	return list[0].(map[string]any)["code"]
}

func TestNeedsApprovalThenPendingThenIssued(t *testing.T) {
	now := time.Now()
	a := newAccount(t, fakeca.Config{Approval: true, Delay: time.Hour, Now: func() time.Time { return now }})
	placed := a.place("ref-1")
	order := id(placed["id"])
	request := placed["requests"].([]any)[0].(map[string]any)
	assert.Equal(t, "needs_approval", request["status"])
	assert.NotContains(t, placed, "certificate_id")
	assert.NotContains(t, placed, "status", "the answer to an order has no state of its own")
	status := func() any {
		code, _, answer, _ := a.ask("GET", "/order/certificate/"+order, nil)
		require.Equal(t, 200, code)
		return answer["status"]
	}
	assert.Equal(t, "needs_approval", status())
	code, _, _, _ := a.ask("PUT", "/request/"+id(request["id"])+"/status", map[string]any{"status": "approved", "processor_comment": "yes"})
	assert.Equal(t, 204, code)
	assert.Equal(t, "pending", status())
	code, _, _, _ = a.ask("GET", "/certificate/download/order/"+order+"/format/pem_all", nil)
	assert.Equal(t, 406, code, "too early")
	now = now.Add(time.Hour)
	assert.Equal(t, "issued", status())
	code, header, _, raw := a.ask("GET", "/certificate/download/order/"+order+"/format/pem_all", nil)
	assert.Equal(t, 200, code)
	assert.Equal(t, "application/x-pem-file", header.Get("Content-Type"))
	block, rest := pem.Decode(raw)
	leaf, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	assert.Equal(t, []string{"www.example.com", "example.com"}, leaf.DNSNames, "names come from the order, not from its CSR")
	assert.Equal(t, 2, bytes.Count(rest, []byte("BEGIN CERTIFICATE")), "then the intermediate and the root")
	now = now.Add(91 * 24 * time.Hour)
	assert.Equal(t, "expired", status())
}

func TestTheThreeShapes(t *testing.T) {
	placed := newAccount(t, fakeca.Config{}).place("")
	assert.Len(t, placed["certificate_chain"], 3)
	assert.Contains(t, placed, "certificate_id")
	assert.Equal(t, "approved", placed["requests"].([]any)[0].(map[string]any)["status"])
	placed = newAccount(t, fakeca.Config{Delay: time.Hour}).place("")
	assert.NotContains(t, placed, "certificate_chain")
	assert.Contains(t, placed, "certificate_id")
	placed = newAccount(t, fakeca.Config{Approval: true}).place("")
	assert.NotContains(t, placed, "certificate_id")
}

func TestEveryFormat(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	cert := id(a.place("")["certificate_id"])
	for format, want := range map[string]int{"pem_all": 3, "pem_noroot": 2, "pem_nointermediate": 1, "cer": 1} {
		code, _, _, raw := a.ask("GET", "/certificate/"+cert+"/download/format/"+format, nil)
		assert.Equal(t, 200, code)
		assert.Equal(t, want, bytes.Count(raw, []byte("BEGIN CERTIFICATE")), format)
	}
	code, header, _, raw := a.ask("GET", "/certificate/"+cert+"/download/format/p7b", nil)
	assert.Equal(t, 200, code)
	assert.Equal(t, "application/x-pkcs7-certificates", header.Get("Content-Type"))
	message, err := pkcs7.Parse(raw)
	require.NoError(t, err)
	assert.Len(t, message.Certificates, 2)
	code, _, _, _ = a.ask("GET", "/certificate/"+cert+"/download/format/odd", nil)
	assert.Equal(t, 400, code)
	code, _, answer, _ := a.ask("GET", "/certificate/"+cert+"/chain", nil)
	assert.Equal(t, 200, code)
	assert.Len(t, answer["intermediates"], 3)
	a.fake.Core().Behave(fakeca.Behaviour{WrongKey: -1})
	_, _, _, wrong := a.ask("GET", "/certificate/"+cert+"/download/format/cer", nil)
	a.fake.Core().Behave(fakeca.Behaviour{})
	_, _, _, right := a.ask("GET", "/certificate/"+cert+"/download/format/cer", nil)
	assert.NotEqual(t, wrong, right)
}

func TestReissueKeepsTheOrder(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	placed := a.place("")
	status, _, answer, _ := a.ask("POST", "/order/certificate/"+id(placed["id"])+"/reissue", a.order(""))
	assert.Equal(t, 201, status)
	assert.Equal(t, placed["id"], answer["id"])
	assert.NotEqual(t, placed["certificate_id"], answer["certificate_id"])
}

func TestLookUps(t *testing.T) {
	a := newAccount(t, fakeca.Config{Approval: true})
	status, _, answer, _ := a.ask("GET", "/order/certificate/status-changes?minutes=5", nil)
	assert.Equal(t, 200, status)
	assert.Empty(t, answer, "{}")
	for orders := range 3 {
		status, _, answer, _ = a.ask("GET", "/order/alternate/ref", nil)
		assert.Equal(t, 200, status)
		assert.Len(t, answer["orders"], orders)
		a.place("ref")
	}
	a.place("other")
	_, _, answer, _ = a.ask("GET", "/order/certificate/status-changes?seconds=60", nil)
	require.Len(t, answer["orders"], 4)
	assert.Equal(t, "needs_approval", answer["orders"].([]any)[0].(map[string]any)["status"])
	status, _, answer, _ = a.ask("GET", "/order/certificate/status-changes?minutes=10081", nil)
	assert.Equal(t, 400, status)
	assert.Equal(t, "time_frame_too_long", code(answer))
	_, _, answer, _ = a.ask("GET", "/order/certificate?filters[common_name]=www.example.com&filters[status]=needs_approval&sort=-date_created&limit=3&offset=2", nil)
	assert.Len(t, answer["orders"], 2)
	assert.Equal(t, map[string]any{"total": 4.0, "limit": 3.0, "offset": 2.0}, answer["page"])
	assert.NotContains(t, answer["orders"].([]any)[0].(map[string]any)["certificate"], "csr", "a row is thin")
	_, _, answer, _ = a.ask("GET", "/order/certificate?filters[common_name]=other.example.com", nil)
	assert.Empty(t, answer["orders"])
}

func TestCancelAndRevoke(t *testing.T) {
	a := newAccount(t, fakeca.Config{Delay: time.Hour})
	order := id(a.place("")["id"])
	status, _, _, _ := a.ask("PUT", "/order/certificate/"+order+"/status", map[string]any{"status": "canceled"})
	assert.Equal(t, 400, status, "without a note")
	status, _, _, _ = a.ask("PUT", "/order/certificate/"+order+"/status", map[string]any{"status": "canceled", "note": "n"})
	assert.Equal(t, 204, status)
	_, _, answer, _ := a.ask("GET", "/order/certificate/"+order, nil)
	assert.Equal(t, "canceled", answer["status"], "with one l")
	status, _, answer, _ = a.ask("PUT", "/order/certificate/1/status", map[string]any{"status": "canceled", "note": "n"})
	assert.Equal(t, 404, status)
	assert.Equal(t, "not_found|order", code(answer))

	a = newAccount(t, fakeca.Config{})
	a.fake.Set(digicert.Modes{RevokeByRequest: true})
	placed := a.place("")
	status, _, answer, _ = a.ask("PUT", "/certificate/"+id(placed["certificate_id"])+"/revoke", map[string]any{"comments": "c"})
	assert.Equal(t, 201, status)
	assert.Equal(t, "revoke", answer["type"])
	assert.Equal(t, "pending", answer["status"])
	status, _, _, _ = a.ask("PUT", "/request/"+id(answer["id"])+"/status", map[string]any{"status": "approved"})
	assert.Equal(t, 204, status)
	_, _, answer, _ = a.ask("GET", "/order/certificate/"+id(placed["id"]), nil)
	assert.Equal(t, "revoked", answer["status"])
	status, _, _, _ = a.ask("PUT", "/certificate/"+id(placed["certificate_id"])+"/revoke", map[string]any{"comments": "c", "skip_approval": true})
	assert.Equal(t, 400, status, "again")
}

func TestRefusals(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	for name, c := range map[string]struct {
		product string
		change  func(body map[string]any)
		status  int
		code    string
	}{
		"product":      {"ssl_odd", nil, 404, "not_found|product"},
		"csr":          {"ssl_basic", func(b map[string]any) { b["certificate"].(map[string]any)["csr"] = "x" }, 400, "csr_invalid_cannot_parse"},
		"name":         {"ssl_basic", func(b map[string]any) { delete(b["certificate"].(map[string]any), "common_name") }, 400, "bad_request_format"},
		"validity":     {"ssl_basic", func(b map[string]any) { delete(b, "order_validity") }, 400, "bad_request_format"},
		"organization": {"ssl_basic", func(b map[string]any) { delete(b, "organization") }, 400, "bad_request_format"},
	} {
		body := a.order("")
		if c.change != nil {
			c.change(body)
		}
		status, _, answer, _ := a.ask("POST", "/order/certificate/"+c.product, body)
		assert.Equal(t, c.status, status, name)
		assert.Equal(t, c.code, code(answer), name)
	}
	assert.Empty(t, a.fake.Core().Ledger(nil))
	body := a.order("")
	delete(body, "organization")
	status, _, _, _ := a.ask("POST", "/order/certificate/ssl_dv_geotrust", body)
	assert.Equal(t, 201, status, "DV needs no organization")
	status, _, answer, _ := a.ask("GET", "/odd", nil)
	assert.Equal(t, 404, status)
	assert.Equal(t, "not_found|route", code(answer))
	a.fake.Set(digicert.Modes{Plain: true})
	body = a.order("")
	body["skip_approval"] = true
	status, _, answer, _ = a.ask("POST", "/order/certificate/ssl_basic", body)
	assert.Equal(t, 403, status)
	assert.Equal(t, "access_denied|missing_permission", code(answer))
	a.key = "another"
	status, _, _, _ = a.ask("GET", "/user/me", nil)
	assert.Equal(t, 401, status)
}

func TestTooManyRequestsHaveNoRetryAfter(t *testing.T) {
	a := newAccount(t, fakeca.Config{Limits: []fakeca.Limit{{Requests: 100, Within: 5 * time.Second}, {Requests: 1000, Within: 3 * time.Minute}}})
	for range 100 {
		status, _, _, _ := a.ask("GET", "/user/me", nil)
		require.Equal(t, 200, status)
	}
	status, header, answer, _ := a.ask("GET", "/user/me", nil)
	assert.Equal(t, 429, status)
	assert.Empty(t, header.Get("Retry-After"))
	assert.Equal(t, "request_limit_exceeded", code(answer))
}

// The connection ends after the order was made.
func TestTheAnswerIsLostAfterTheOrder(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	server := httptest.NewServer(a.fake)
	defer server.Close()
	a.fake.Core().Script(fakeca.Place, fakeca.Fault{Kind: fakeca.Lost})
	data, err := json.Marshal(a.order("ref"))
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+digicert.Base+"/order/certificate/ssl_basic", bytes.NewReader(data))
	require.NoError(t, err)
	r.Header.Set("X-DC-DEVKEY", digicert.Key)
	answer, err := http.DefaultClient.Do(r)
	if err == nil {
		_, err = io.ReadAll(answer.Body)
	}
	require.Error(t, err)
	require.Len(t, a.fake.Core().Ledger(nil), 1)
	assert.Equal(t, "ref", a.fake.Core().Ledger(nil)[0].Reference)
}

func TestProofOfDomains(t *testing.T) {
	a := newAccount(t, fakeca.Config{})
	a.fake.Set(digicert.Modes{Unproven: true})
	placed := a.place("")
	domains := placed["domains"].([]any)
	require.Len(t, domains, 2)
	assert.Equal(t, "pending", domains[0].(map[string]any)["dcv_token"].(map[string]any)["status"])
	order := id(placed["id"])
	_, _, answer, _ := a.ask("PUT", "/order/certificate/"+order+"/dcv-random-value", nil)
	assert.Equal(t, placed["dcv_random_value"], answer["dcv_random_value"])
	_, _, answer, _ = a.ask("PUT", "/order/certificate/"+order+"/check-dcv", nil)
	assert.Equal(t, "pending", answer["order_status"])
	domain := id(domains[0].(map[string]any)["id"])
	_, _, answer, _ = a.ask("GET", "/domain/"+domain+"?include_dcv=true&include_validation=true", nil)
	assert.Equal(t, "pending", answer["status"])
	status, _, _, _ := a.ask("PUT", "/domain/"+domain+"/dcv/validate-token", nil)
	assert.Equal(t, 400, status)
	require.NoError(t, a.fake.Prove(order))
	status, _, _, _ = a.ask("PUT", "/domain/"+domain+"/dcv/validate-token", nil)
	assert.Equal(t, 204, status)
	_, _, answer, _ = a.ask("PUT", "/order/certificate/"+order+"/check-dcv", nil)
	assert.Equal(t, "issued", answer["order_status"])
	_, _, answer, _ = a.ask("GET", "/domain/"+domain, nil)
	assert.Equal(t, "active", answer["status"])
}
