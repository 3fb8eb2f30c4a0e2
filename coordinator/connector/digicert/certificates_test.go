package digicert_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/digicert"
	"github.com/certctl/certctl/internal/fakeca"
	fake "github.com/certctl/certctl/internal/fakeca/digicert"
	"github.com/certctl/certctl/shared/pki"
)

// A revocation that an administrator has to approve is not done.
func TestARevocationThatWaits(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, nil)
	server.Set(fake.Modes{RevokeByRequest: true})
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	revocation := &connector.Revocation{Request: r, Handle: placed.Handle}
	done, err := c.Revoke(t.Context(), revocation)
	require.NoError(t, err)
	assert.False(t, done)
	assert.True(t, server.Core().Ledger(nil)[0].Newest().RevokedAt.IsZero())

	admin, server := fixture(t, connectortest.Options{}, func(c *digicert.Config) { c.SkipApproval = true })
	server.Set(fake.Modes{RevokeByRequest: true})
	placed, err = admin.Place(t.Context(), r)
	require.NoError(t, err)
	done, err = admin.Revoke(t.Context(), &connector.Revocation{Request: r, Handle: placed.Handle})
	require.NoError(t, err)
	assert.True(t, done)
}

// One certificate is revoked, and no other one of its order, unless the settings
// say so.
func TestWhatARevocationRevokes(t *testing.T) {
	for _, whole := range []bool{false, true} {
		c, server := fixture(t, connectortest.Options{}, func(c *digicert.Config) { c.RevokeOrder = whole })
		r, _ := connectortest.Request(t, "www.example.com")
		placed, err := c.Place(t.Context(), r)
		require.NoError(t, err)
		again, _ := connectortest.Request(t, "www.example.com")
		_, err = c.Reissue(t.Context(), again, placed.Handle)
		require.NoError(t, err)
		leaf := server.Core().Ledger(nil)[0].Certificates[0].Leaf
		done, err := c.Revoke(t.Context(), &connector.Revocation{Request: r, Handle: placed.Handle, Serial: pki.SerialHex(leaf)})
		require.NoError(t, err)
		assert.True(t, done)
		certs := server.Core().Ledger(nil)[0].Certificates
		require.Len(t, certs, 2)
		assert.False(t, certs[0].RevokedAt.IsZero())
		assert.Equal(t, whole, !certs[1].RevokedAt.IsZero())
	}
}

func TestWhatARevocationSays(t *testing.T) {
	ask := func(reason int, change func(*digicert.Config)) map[string]any {
		got := map[string]any{}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			assert.Equal(t, "/certificate/0abc/revoke", r.URL.Path)
			assert.Equal(t, http.MethodPut, r.Method)
			assert.NoError(t, json.NewDecoder(r.Body).Decode(&got))
			w.WriteHeader(http.StatusNoContent)
		}))
		defer server.Close()
		config := digicert.Config{URL: server.URL, Key: func() (string, error) { return "k", nil }, Product: "ssl_basic"}
		if change != nil {
			change(&config)
		}
		c, err := digicert.New(config)
		require.NoError(t, err)
		defer c.Close()
		done, err := c.Revoke(t.Context(), &connector.Revocation{Serial: "0abc", Reason: reason, Comment: "so"})
		require.NoError(t, err)
		assert.True(t, done)
		return got
	}
	for reason, word := range map[int]string{
		0: "unspecified", 1: "key_compromise", 3: "affiliation_changed", 4: "superseded", 5: "cessation_of_operation", 9: "privilege_withdrawn",
	} {
		assert.Equal(t, map[string]any{"comments": "so", "revocation_reason": word}, ask(reason, nil))
	}
	assert.Equal(t, map[string]any{"comments": "so"}, ask(6, nil))
	assert.Equal(t, "superseded", ask(4, func(c *digicert.Config) { c.ReasonField = "reason" })["reason"])
	assert.Equal(t, map[string]any{"comments": "so"}, ask(4, func(c *digicert.Config) { c.ReasonField = "-" }))
}

// While a reissue waits the certificate of before is good, nothing is revoked, and
// its cancellation leaves the order issued.
func TestAReissueThatWaits(t *testing.T) {
	now := time.Now()
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Delay: time.Hour, Now: func() time.Time { return now }}}, nil)
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	now = now.Add(time.Hour)
	status, err := c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	require.Equal(t, connector.Issued, status.State)
	old := status.Handle

	again, _ := connectortest.Request(t, "www.example.com")
	reissue, err := c.Reissue(t.Context(), again, old)
	require.NoError(t, err)
	assert.Equal(t, connector.Pending, reissue.State)
	assert.NotEqual(t, old.Certificate, reissue.Handle.Certificate)
	status, err = c.Status(t.Context(), again, reissue.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.Pending, status.State)
	assert.Equal(t, "reissue_pending", status.Raw)
	assert.Equal(t, reissue.Handle.Certificate, reissue.Handle.With(status.Handle).Certificate, "the certificate of before is not the one that is waited for")
	_, err = c.Collect(t.Context(), again, reissue.Handle)
	assert.Equal(t, connector.ClassNotReady, connector.Classify(err).Class)
	_, err = c.Revoke(t.Context(), &connector.Revocation{Request: r, Handle: old})
	assert.Equal(t, connector.ClassRefused, connector.Classify(err).Class)

	require.NoError(t, c.Cancel(t.Context(), again, reissue.Handle, ""))
	status, err = c.Status(t.Context(), r, old)
	require.NoError(t, err)
	assert.Equal(t, connector.Issued, status.State)
	bundle, err := c.Collect(t.Context(), r, old)
	require.NoError(t, err)
	_, err = connectortest.Check(t, c, r, bundle)
	require.NoError(t, err)
	assert.Len(t, server.Core().Ledger(nil), 1)
}

// A cancelled order that waits for an administrator is rejected as a request; one
// that nobody may reject stays, and that is said.
func TestCancelOfWhatWaits(t *testing.T) {
	for _, plain := range []bool{false, true} {
		c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Approval: true}}, nil)
		server.Set(fake.Modes{Plain: plain})
		r, _ := connectortest.Request(t, "www.example.com")
		placed, err := c.Place(t.Context(), r)
		require.NoError(t, err)
		err = c.Cancel(t.Context(), r, placed.Handle, "not needed")
		if !plain {
			require.NoError(t, err)
			assert.Equal(t, "not needed", server.Core().Ledger(nil)[0].Note)
			continue
		}
		assert.Equal(t, connector.ClassNeedsPerson, connector.Classify(err).Class)
		assert.Equal(t, fakeca.Waiting, server.Core().Ledger(nil)[0].State)
	}
}

func TestValidations(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, func(c *digicert.Config) { c.DCVMethod = "dns-txt-token" })
	server.Set(fake.Modes{Unproven: true})
	r, _ := connectortest.Request(t, "a.example.com", "b.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	status, err := c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.NeedsPerson, status.State)
	assert.Equal(t, "pending", status.Raw)
	list, err := c.Validations(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, "b.example.com", list[1].Name)
	assert.Equal(t, "dns-txt-token", list[1].Method)
	assert.Equal(t, "pending", list[1].State)
	assert.False(t, list[1].Done)
	assert.Contains(t, list[1].Todo, "publish the token ")

	require.NoError(t, server.Prove(placed.Handle.Order))
	require.NoError(t, c.CheckValidations(t.Context(), placed.Handle))
	list, err = c.Validations(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	require.Len(t, list, 1, "an order that shows no domains any more is checked as a whole")
	assert.True(t, list[0].Done)
	status, err = c.Status(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	assert.Equal(t, connector.Issued, status.State)
}

func TestTheTestOfAnAccountWarns(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, func(c *digicert.Config) { c.SkipApproval, c.Product = true, "ssl_unheard_of" })
	server.Set(fake.Modes{Plain: true})
	account, err := c.Test(t.Context())
	require.NoError(t, err)
	require.Len(t, account.Warnings, 2)
	assert.Contains(t, account.Warnings[0], "skip_approval")
	assert.Contains(t, account.Warnings[1], "ssl_unheard_of")
	server.Set(fake.Modes{NoPermission: true})
	_, err = c.Test(t.Context())
	assert.Equal(t, connector.ClassCredentials, connector.Classify(err).Class)
}

// FuzzAnswers has every question answered by anything at all: what comes is an
// answer or an Error, and never an order of no name.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		`{"id":1,"requests":[{"id":2,"status":"approved"}],"certificate_id":3,"certificate_chain":[{"subject_common_name":"x","pem":"-----BEGIN CERTIFICATE-----"}]}`,
		`{"id":1,"status":"pending","certificate":{"id":4},"domains":[{"id":9,"name":"a","dcv_token":{"token":"t","status":"pending"}}]}`,
		`{"orders":[{"order_id":1,"certificate_id":2,"status":"issued"}]}`, `{"errors":[{"code":"a|b","message":"c"}]}`, `{"errors":{}}`,
		`{"products":[{"name_id":"ssl_basic"}],"username":"u","access_roles":[{}]}`, `{"dcv_expiration":{"ov":"2027-01-01"}}`, ``, `null`, `[]`, `<html>`,
	} {
		f.Add(200, []byte(seed))
		f.Add(400, []byte(seed))
	}
	var status int
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}))
	f.Cleanup(server.Close)
	c, err := digicert.New(digicert.Config{URL: server.URL, Key: func() (string, error) { return "the-key", nil }, Product: "ssl_basic"})
	require.NoError(f, err)
	f.Cleanup(c.Close)
	r, _ := connectortest.Request(f, "www.example.com")
	h := connector.Handle{Order: "1", Certificate: "2", Request: "3"}
	f.Fuzz(func(t *testing.T, code int, data []byte) {
		if code < 200 || code > 599 || len(data) > 1<<16 {
			return
		}
		status, body = code, data
		if code == http.StatusNoContent || code == http.StatusNotModified {
			body = nil
		}
		sound := func(s *connector.Status, err error) {
			connectortest.SoundStatus(t, s, err)
			if err == nil {
				assert.NotEmpty(t, s.Handle.Order)
			}
		}
		sound(c.Place(t.Context(), r))
		sound(c.Status(t.Context(), r, h))
		list, err := c.Changes(t.Context(), time.Now())
		connectortest.Sound(t, err)
		for i := range list {
			sound(&list[i], nil)
		}
		_, err = c.Search(t.Context(), r, 0)
		connectortest.Sound(t, err)
		_, err = c.Collect(t.Context(), r, h)
		connectortest.Sound(t, err)
		_, err = c.Validations(t.Context(), r, h)
		connectortest.Sound(t, err)
		_, err = c.Revoke(t.Context(), &connector.Revocation{Request: r, Handle: h})
		connectortest.Sound(t, err)
		_, err = c.Test(t.Context())
		connectortest.Sound(t, err)
	})
}
