package api_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/issuers"
	"github.com/certctl/certctl/shared/wire"
)

// someIssuers are accounts that a test makes up.
type someIssuers struct {
	follows bool
	asked   []string
	list    []resource.Issuer
	test    resource.IssuerTest
}

func (s *someIssuers) List() ([]resource.Issuer, bool) { return s.list, !s.follows }

func (s *someIssuers) known(name, what, actor string) error {
	s.asked = append(s.asked, what+" "+name+" "+actor)
	if s.follows {
		return issuers.ErrNotLeading
	}
	for _, one := range s.list {
		if one.Name == name {
			return nil
		}
	}
	return issuers.ErrUnknown
}

func (s *someIssuers) Test(_ context.Context, name, actor string) (*resource.IssuerTest, error) {
	return &s.test, s.known(name, "test", actor)
}

func (s *someIssuers) Resume(name, actor string) error { return s.known(name, "resume", actor) }

func TestIssuers(t *testing.T) {
	w := start(t)
	assert.Empty(t, get[resource.Page[resource.Issuer]](w, "/api/v1/issuers").Items, "there are none")
	now := time.Now().UTC().Truncate(time.Second)
	some := &someIssuers{
		list: []resource.Issuer{{Name: "ov", Kind: "digicert", State: resource.IssuerPaused, Orders: 3, PausedUntil: now, PausedFor: "the key", PollMaxWaitSeconds: 600}},
		test: resource.IssuerTest{Name: "ov", Kind: "digicert", Facts: []resource.IssuerFact{{Name: "role", Value: "user"}}, Warnings: []string{"slow"}, Class: "credentials", Error: "no"},
	}
	w.UseIssuers(some)
	assert.Equal(t, some.list, get[resource.Page[resource.Issuer]](w, "/api/v1/issuers").Items)
	done := decode[resource.IssuerTest](t, w.ask(http.MethodPost, "/api/v1/issuers/ov/test", nil), http.StatusOK)
	assert.Equal(t, some.test, done, "what is wrong with the account is no error of the request")
	one := decode[resource.Issuer](t, w.ask(http.MethodPost, "/api/v1/issuers/ov/resume", nil), http.StatusOK)
	assert.Equal(t, some.list[0], one)
	actor := "api_token:" + w.Admin.ID
	assert.Equal(t, []string{"test ov " + actor, "resume ov " + actor}, some.asked)

	for _, what := range []string{"test", "resume"} {
		p := w.ask(http.MethodPost, "/api/v1/issuers/none/"+what, nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
		assert.Equal(t, "name", p.Field)
		assert.Contains(t, p.Detail, `no issuer "none"`)
	}
	// A node that turns out not to lead says to ask again, by which the request comes
	// to the one that does.
	some.follows = true
	w.ask(http.MethodGet, "/api/v1/issuers", nil).problem(t, http.StatusServiceUnavailable, wire.CodeUnavailable)
	for _, what := range []string{"test", "resume"} {
		w.ask(http.MethodPost, "/api/v1/issuers/ov/"+what, nil).problem(t, http.StatusServiceUnavailable, wire.CodeUnavailable)
	}
	require.Len(t, some.asked, 6)
}
