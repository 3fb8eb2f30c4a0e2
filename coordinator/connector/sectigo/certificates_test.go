package sectigo_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/connector/connectortest"
	"github.com/certctl/certctl/coordinator/connector/sectigo"
	"github.com/certctl/certctl/internal/fakeca"
	fake "github.com/certctl/certctl/internal/fakeca/sectigo"
	"github.com/certctl/certctl/shared/pki"
)

// Every way in which a certificate is not there yet.
func TestEveryWayOfNotReady(t *testing.T) {
	for _, mode := range []string{fake.NotCollectable, fake.Processing, fake.NotFoundYet, fake.Empty} {
		for _, inPath := range []bool{false, true} {
			c, server := fixture(t, connectortest.Options{}, func(c *sectigo.Config, _ *fake.Server) { c.FormatInPath = inPath })
			server.Set(fake.Modes{NotReady: mode})
			server.Core().Behave(fakeca.Behaviour{NotReady: 1})
			r, _ := connectortest.Request(t, "www.example.com")
			placed, err := c.Place(t.Context(), r)
			require.NoError(t, err)
			_, err = c.Collect(t.Context(), r, placed.Handle)
			assert.Equal(t, connector.ClassNotReady, connector.Classify(err).Class, mode)
			bundle, err := c.Collect(t.Context(), r, placed.Handle)
			require.NoError(t, err)
			_, err = connectortest.Check(t, c, r, bundle)
			require.NoError(t, err)
		}
	}
}

// An account where Applied is collectable already.
func TestAppliedIsIssuedIfTheSettingsSaySo(t *testing.T) {
	for _, collect := range []bool{false, true} {
		c, server := fixture(t, connectortest.Options{}, func(c *sectigo.Config, _ *fake.Server) { c.CollectApplied = collect })
		server.Set(fake.Modes{AppliedForIssued: true})
		r, _ := connectortest.Request(t, "www.example.com")
		placed, err := c.Place(t.Context(), r)
		require.NoError(t, err)
		status, err := c.Status(t.Context(), r, placed.Handle)
		require.NoError(t, err)
		assert.Equal(t, collect, status.State == connector.Issued)
		_, err = c.Collect(t.Context(), r, placed.Handle)
		require.NoError(t, err)
	}
}

func TestDatesOfEveryForm(t *testing.T) {
	at := time.Date(2027, 3, 9, 10, 11, 12, 0, time.UTC)
	for _, old := range []bool{false, true} {
		c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Now: func() time.Time { return at }}}, nil)
		server.Set(fake.Modes{OldDates: old})
		r, _ := connectortest.Request(t, "www.example.com")
		placed, err := c.Place(t.Context(), r)
		require.NoError(t, err)
		status, err := c.Status(t.Context(), r, placed.Handle)
		require.NoError(t, err)
		want := at
		if old {
			want = at.Truncate(24 * time.Hour)
		}
		assert.True(t, want.Equal(status.PlacedAt), status.PlacedAt)
	}
}

func TestWhatARevocationRevokes(t *testing.T) {
	for _, byOrder := range []bool{false, true} {
		c, server := fixture(t, connectortest.Options{}, func(c *sectigo.Config, _ *fake.Server) { c.RevokeByOrder = byOrder })
		r, _ := connectortest.Request(t, "www.example.com")
		placed, err := c.Place(t.Context(), r)
		require.NoError(t, err)
		again, _ := connectortest.Request(t, "www.example.com")
		_, err = c.Reissue(t.Context(), again, placed.Handle)
		require.NoError(t, err)
		old := server.Core().Ledger(nil)[0].Certificates[0].Leaf
		done, err := c.Revoke(t.Context(), &connector.Revocation{Handle: placed.Handle, Serial: pki.SerialHex(old), Reason: 9})
		require.NoError(t, err)
		assert.True(t, done)
		certs := server.Core().Ledger(nil)[0].Certificates
		assert.Equal(t, !byOrder, !certs[0].RevokedAt.IsZero())
		assert.Equal(t, byOrder, !certs[1].RevokedAt.IsZero())
	}
	// Reasons that the vendor has no code for are unspecified.
	for reason, sent := range map[int]int{0: 0, 1: 1, 2: 0, 3: 3, 4: 4, 5: 5, 6: 0, 9: 0, 10: 0} {
		c, server := fixture(t, connectortest.Options{}, nil)
		r, _ := connectortest.Request(t, "www.example.com")
		placed, err := c.Place(t.Context(), r)
		require.NoError(t, err)
		_, err = c.Revoke(t.Context(), &connector.Revocation{Handle: placed.Handle, Reason: reason, Comment: "because"})
		require.NoError(t, err)
		assert.Equal(t, sent, server.Core().Ledger(nil)[0].Certificates[0].Reason)
		_, err = c.Collect(t.Context(), r, placed.Handle)
		assert.Equal(t, connector.ClassRefused, connector.Classify(err).Class, "what is revoked is not fetched")
	}
	c, _ := fixture(t, connectortest.Options{Fake: fakeca.Config{Delay: time.Hour}}, nil)
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	_, err = c.Revoke(t.Context(), &connector.Revocation{Handle: placed.Handle})
	assert.Equal(t, "-102", connector.Classify(err).Code)
}

func TestWhatIsAtTheCACannotBeTakenBack(t *testing.T) {
	c, server := fixture(t, connectortest.Options{Fake: fakeca.Config{Delay: time.Hour}}, nil)
	r, _ := connectortest.Request(t, "www.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	err = c.Cancel(t.Context(), r, placed.Handle, "")
	e := connector.Classify(err)
	assert.Equal(t, connector.ClassRefused, e.Class)
	assert.NotEmpty(t, e.Mend)
	assert.Equal(t, fakeca.Working, server.Core().Ledger(nil)[0].State)
}

func TestValidations(t *testing.T) {
	c, server := fixture(t, connectortest.Options{}, nil)
	server.Set(fake.Modes{Unproven: true})
	r, _ := connectortest.Request(t, "a.example.com", "b.example.com")
	placed, err := c.Place(t.Context(), r)
	require.NoError(t, err)
	list, err := c.Validations(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, "b.example.com", list[1].Name)
	assert.Equal(t, "Awaiting Validation", list[1].State)
	assert.Equal(t, "CNAME", list[1].Method)
	assert.Equal(t, "publish _abc.b.example.com CNAME def.fake.example", list[1].Todo)
	assert.False(t, list[1].Done)
	assert.InDelta(t, time.Hour.Seconds(), list[1].Next.Sub(list[1].Checked).Seconds(), 1)
	require.NoError(t, server.Prove(placed.Handle.Order))
	require.NoError(t, c.CheckValidations(t.Context(), placed.Handle))
	list, err = c.Validations(t.Context(), r, placed.Handle)
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.True(t, list[0].Done)
	assert.Empty(t, list[0].Todo)
}

func TestTheTestOfAnAccountWarns(t *testing.T) {
	c, _ := fixture(t, connectortest.Options{}, func(c *sectigo.Config, _ *fake.Server) { c.Terms = []int{90, 398} })
	account, err := c.Test(t.Context())
	require.NoError(t, err)
	require.Len(t, account.Warnings, 1)
	assert.Contains(t, account.Warnings[0], "398")
	c, _ = fixture(t, connectortest.Options{}, func(c *sectigo.Config, _ *fake.Server) { c.Profile = 1 })
	account, err = c.Test(t.Context())
	require.NoError(t, err)
	require.Len(t, account.Warnings, 1)
	assert.Contains(t, account.Warnings[0], "no profile 1")
}

// FuzzAnswers has every question answered by anything at all.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		`{"sslId":1,"renewId":"x"}`, `{"id":1,"sslId":"1","status":"Issued","comments":"c","customFields":[{"name":"a","value":"b"}],"requested":"01/02/2027"}`,
		`[{"sslId":1}]`, `[{"id":1,"name":"n","terms":[90]}]`, `{"code":-183,"description":"d"}`, `{"code":"-1"}`, `{"code":{}}`,
		`{"dcvLog":{"error":{"description":"e"},"log":[{"dcvStatus":"Awaiting Validation","domainName":"a","lastCheck":"x"}]},"instructions":[{"domainName":"b","url":"u","file":"f"}]}`,
		``, `null`, `[]`, `<html>`,
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
	c, _ := fixture(f, connectortest.Options{}, func(c *sectigo.Config, _ *fake.Server) { c.URL = server.URL })
	r, _ := connectortest.Request(f, "www.example.com")
	h := connector.Handle{Order: "1"}
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
		sound(c.Reissue(t.Context(), r, h))
		list, err := c.Search(t.Context(), r, 0)
		connectortest.Sound(t, err)
		for i := range list {
			sound(&list[i], nil)
		}
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
