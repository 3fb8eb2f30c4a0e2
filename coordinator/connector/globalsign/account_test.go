package globalsign_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/globalsign"
	"github.com/certctl/certctl/internal/fakeca"
	fake "github.com/certctl/certctl/internal/fakeca/globalsign"
	"github.com/certctl/certctl/shared/pki"
)

// Reasons that the vendor has no word for are unspecified.
func TestReasonsOfARevocation(t *testing.T) {
	for reason, sent := range map[int]int{0: 0, 1: 1, 2: 0, 3: 3, 4: 4, 5: 5, 6: 0, 9: 9, 10: 0} {
		c, server := fixture(t, connectortest.Options{}, nil)
		r, _ := connectortest.Request(t, "www.example.com")
		placed, err := c.Place(t.Context(), r)
		require.NoError(t, err)
		h := placed.Handle
		if reason%2 == 0 {
			h = connector.Handle{} // the serial number alone
		}
		done, err := c.Revoke(t.Context(), &connector.Revocation{Handle: h, Serial: pki.SerialHex(server.Core().Ledger(nil)[0].Newest().Leaf), Reason: reason})
		require.NoError(t, err)
		assert.True(t, done)
		assert.Equal(t, sent, server.Core().Ledger(nil)[0].Newest().Reason)
		status, err := c.Status(t.Context(), r, placed.Handle)
		require.NoError(t, err)
		assert.Equal(t, connector.Revoked, status.State)
	}
	c, _ := fixture(t, connectortest.Options{Fake: fakeca.Config{Delay: time.Hour}}, nil)
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	done, err := c.Revoke(t.Context(), &connector.Revocation{Handle: placed.Handle})
	assert.Equal(t, connector.ClassRefused, connector.Classify(err).Class, "it is not issued")
	assert.False(t, done)
	_, err = c.Revoke(t.Context(), &connector.Revocation{})
	assert.Equal(t, connector.ClassNotFound, connector.Classify(err).Class)
}

// A domain is claimed and proven by a person; orders need that where the account's
// policy says so.
func TestClaims(t *testing.T) {
	now := time.Now()
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Now: func() time.Time { return now }}}, func(c *globalsign.Config, _ *fake.Server) {
		c.Now = func() time.Time { return now }
	})
	server.Set(fake.Modes{ClaimsNeeded: true})
	r, _ := connectortest.Request(t, "*.example.com", "www.example.org", "notexample.com")
	_, err := c.Place(t.Context(), r)
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassNeedsPerson, e.Class)
	assert.True(t, e.NotPlaced)
	assert.Contains(t, e.Mend, "claim")
	list, err := c.Validations(t.Context(), r, connector.Handle{})
	require.NoError(t, err)
	require.Len(t, list, 3)
	assert.Equal(t, "*.example.com", list[0].Name)
	assert.True(t, list[0].Done, "a claim of the domain above covers it")
	assert.Equal(t, "VERIFIED", list[0].State)
	assert.Equal(t, "DNS", list[0].Method)
	assert.WithinDuration(t, now.Add(397*24*time.Hour), list[0].Expires, time.Second)
	assert.Equal(t, "unclaimed", list[1].State)
	assert.NotEmpty(t, list[1].Todo)
	assert.Equal(t, "unclaimed", list[2].State)

	assertion := server.Claim("example.org")
	server.Assert(assertion)
	now = now.Add(time.Minute)
	list, err = c.Validations(t.Context(), r, connector.Handle{})
	require.NoError(t, err)
	assert.Equal(t, "PENDING", list[2].State)
	assert.False(t, list[2].Done)
	assert.Contains(t, list[2].Todo, "globalsign-domain-verification=")
	assert.Equal(t, "the token was not found", list[2].Problem)
	account, err := c.Test(t.Context())
	require.NoError(t, err)
	require.Len(t, account.Warnings, 1)
	assert.Contains(t, account.Warnings[0], "example.org")

	server.Publish("example.org")
	server.Assert(assertion)
	server.Assert(server.Claim("notexample.com"))
	server.Publish("notexample.com")
	list, err = c.Validations(t.Context(), r, connector.Handle{})
	require.NoError(t, err)
	assert.True(t, list[2].Done)
	assert.Empty(t, list[2].Todo)
	short, _ := connectortest.Request(t, "www.example.org")
	_, err = c.Place(t.Context(), short)
	require.NoError(t, err)

	now = now.Add(390 * 24 * time.Hour)
	account, err = c.Test(t.Context())
	require.NoError(t, err)
	assert.Len(t, account.Warnings, 3, "two that end soon, and one that was never verified")
	now = now.Add(10 * 24 * time.Hour)
	list, err = c.Validations(t.Context(), short, connector.Handle{})
	require.NoError(t, err)
	assert.False(t, list[0].Done)
	assert.Contains(t, list[0].Todo, "expired")
}

func TestTheTestOfAnAccountWarns(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, nil)
	account, err := c.Test(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "CN=fake-atlas-client", account.Name)
	assert.Contains(t, account.Facts, connector.Fact{Name: "certificates left", Value: "100000"})
	assert.Contains(t, account.Facts, connector.Fact{Name: "longest validity", Value: "397d"})
	server.Set(fake.Modes{QuotaSpent: true, BareKey: true, KeySigned: true, Presence: map[string]string{"country": "REQUIRED"}})
	account, err = c.Test(t.Context())
	require.NoError(t, err)
	assert.Len(t, account.Warnings, 3)
	server.Set(fake.Modes{QuotaSpent: true})
	_, err = c.Test(t.Context())
	require.NoError(t, err)
	r, _ := connectortest.Request(t, "www.example.com")
	_, err = c.Place(t.Context(), r)
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassNeedsPerson, e.Class)
	assert.True(t, e.NotPlaced)
	assert.Contains(t, e.Mend, "quota")
}

// FuzzAnswers has every question answered by anything at all.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		plainPolicy, `{"certificate":"","status":"ISSUED","updated_at":1}`, `{"certificate":"-----BEGIN CERTIFICATE-----","status":"ISSUED"}`, `{"status":"REVOKED"}`,
		`[{"serial_number":"0A","not_before":1}]`, `["-----BEGIN CERTIFICATE-----"]`, `{"value":3}`, `{"value":"x"}`,
		`[{"status":"PENDING","token":"t","domain":"example.com.","assert_by":1,"log":[{"status":"ERROR","description":"d","timestamp":9}]}]`,
		`{"description":"d","errors":{"a":"b"}}`, `{"description":1}`, `{"subject_dn":{"organizational_unit":1,"common_name":[]}}`, ``, `null`, `[]`, `<html>`,
	} {
		f.Add(200, "/v2/certificates/0A", []byte(seed))
		f.Add(201, "0A", []byte(seed))
		f.Add(422, "", []byte(seed))
	}
	var status int
	var location string
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/login":
			_, _ = w.Write([]byte(`{"access_token":"t"}`))
		default:
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header()["Location"] = []string{location}
			w.WriteHeader(status)
			_, _ = w.Write(body)
		}
	}))
	f.Cleanup(server.Close)
	now := time.Now()
	c, _ := fixture(f, connectortest.Options{}, func(c *globalsign.Config, _ *fake.Server) {
		c.URL, c.Now = server.URL, func() time.Time { return now }
	})
	r, _ := connectortest.Request(f, "www.example.com")
	f.Fuzz(func(t *testing.T, code int, where string, data []byte) {
		if code < 200 || code > 599 || len(data) > 1<<16 || len(where) > 1<<10 {
			return
		}
		status, location, body = code, where, data
		for _, c := range where {
			if c < ' ' || c > '~' {
				location = ""
			}
		}
		if code == http.StatusNoContent || code == http.StatusNotModified {
			body = nil
		}
		now = now.Add(25 * time.Hour) // nothing is remembered from the one before
		h := connector.Handle{Order: "0A"}
		sound := func(s *connector.Status, err error) {
			connectortest.SoundStatus(t, s, err)
			if err == nil {
				assert.Regexp(t, "^[0-9A-Fa-f]{1,40}$", s.Handle.Order)
			}
		}
		sound(c.Place(t.Context(), r))
		sound(c.Status(t.Context(), r, h))
		list, err := c.Search(t.Context(), r, 0)
		connectortest.Sound(t, err)
		for i := range list {
			sound(&list[i], nil)
		}
		_, err = c.Collect(t.Context(), r, h)
		connectortest.Sound(t, err)
		_, err = c.Issuers(t.Context(), r)
		connectortest.Sound(t, err)
		_, err = c.Validations(t.Context(), r, h)
		connectortest.Sound(t, err)
		_, err = c.Revoke(t.Context(), &connector.Revocation{Request: r, Handle: h})
		connectortest.Sound(t, err)
		_, err = c.Test(t.Context())
		connectortest.Sound(t, err)
	})
}
