package cli

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/issuers"
)

// theIssuers are accounts that a test makes up.
type theIssuers struct {
	mu   sync.Mutex
	list []resource.Issuer
	test resource.IssuerTest
}

func (s *theIssuers) List() ([]resource.Issuer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]resource.Issuer{}, s.list...), true
}

func (s *theIssuers) Test(_ context.Context, name, _ string) (*resource.IssuerTest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != "ov" {
		return nil, issuers.ErrUnknown
	}
	done := s.test
	return &done, nil
}

func (s *theIssuers) Resume(name, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != "ov" {
		return issuers.ErrUnknown
	}
	s.list[0].State = resource.IssuerReady
	return nil
}

func TestIssuersCommands(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	assert.Equal(t, "none\n", p.does("issuers", "list"))
	now := time.Now()
	some := &theIssuers{list: []resource.Issuer{
		{Name: "ov", Kind: "digicert", State: resource.IssuerPaused, Orders: 12, Due: 3, PausedUntil: now.Add(time.Hour), PausedFor: "the API key is\x1b[2J not accepted",
			LastError: "401", LastErrorAt: now.Add(-5 * time.Minute), LastAnswerAt: now.Add(-3 * time.Hour), PollMaxWaitSeconds: 600},
		{Name: "old", State: resource.IssuerUnknown, Orders: 1},
		{Name: "sec", Kind: "sectigo", State: resource.IssuerFailing, Reason: "HTTP status 502", CircuitOpenUntil: now.Add(time.Minute), PollMaxWaitSeconds: 45},
		{Name: "well", Kind: "globalsign", State: resource.IssuerReady, LastError: "it broke off", LastErrorAt: now.Add(-time.Hour), PollMaxWaitSeconds: 45},
	}}
	c.UseIssuers(some)

	text := p.does("issuers", "list")
	table := lines(text)
	assert.Equal(t, []string{"NAME", "KIND", "STATE", "ORDERS", "DUE", "LAST ANSWER", "LAST ERROR", "POLL BUDGET"}, columns(table[0]))
	assert.Equal(t, []string{"ov", "digicert", "paused", "12", "3", "3 h ago", "5 min ago", "10 min"}, columns(table[1]))
	assert.Equal(t, []string{"old", "-", "unknown", "1", "0", "-", "-", "-"}, columns(table[2]))
	assert.Contains(t, text, "\nov: nothing is asked until ")
	assert.Contains(t, text, "the API key is [2J not accepted; when that is mended, \"certctl issuers test ov\" has it go on\n")
	assert.Contains(t, text, "\nold: orders name this issuer, and the settings of the coordinator that leads do not have it")
	assert.Contains(t, text, "\nsec: the authority fails (HTTP status 502); it is tried again at ")
	assert.Contains(t, text, "\nwell: last error, 60 min ago: it broke off\n")
	assert.Len(t, reads[listOf[resource.Issuer]](p, "issuers", "list").Items, 4)

	some.test = resource.IssuerTest{
		Name: "ov", Kind: "digicert", OK: true, Account: "api@example.com", Facts: []resource.IssuerFact{{Name: "role", Value: "Administrator"}},
		Warnings: []string{"orders wait for approval"}, Resumed: true, TookMillis: 120,
	}
	stdout, stderr, status := p.run("issuers", "test", "ov")
	assert.Zero(t, status)
	assert.Equal(t, "certctl: asking the authority of ov ...\n", stderr)
	assert.Contains(t, stdout, "the account:  can be used\n")
	assert.Contains(t, stdout, "role:         Administrator\n")
	assert.Contains(t, stdout, "\nwarning: orders wait for approval\n")
	assert.Contains(t, stdout, "\nnothing was asked of it before; its orders go on now\n")
	assert.True(t, reads[resource.IssuerTest](p, "issuers", "test", "ov").OK)

	some.test = resource.IssuerTest{Name: "ov", Kind: "digicert", Class: "credentials", HTTPStatus: 401, Error: "the key is not known (HTTP status 401)", Mend: "check the issuer's API key"}
	stdout, stderr, status = p.run("issuers", "test", "ov")
	assert.Equal(t, exitFailed, status)
	assert.Contains(t, stdout, "CANNOT BE USED")
	assert.Contains(t, stdout, "what to do:     check the issuer's API key\n")
	assert.Contains(t, stderr, "certctl: ov: the account cannot be used: the key is not known (HTTP status 401)\n")
	stdout, _, status = p.run("issuers", "test", "ov", "--output", "json")
	assert.Equal(t, exitFailed, status)
	assert.Contains(t, stdout, `"ok": false`)
	assert.Contains(t, p.fails(exitFailed, "issuers", "test", "none"), `has no issuer "none"`)

	assert.Equal(t, []string{"ov", "digicert", "ready"}, columns(lines(p.does("issuers", "resume", "ov"))[1])[:3])
	assert.Contains(t, p.fails(exitFailed, "issuers", "resume", "none"), `has no issuer "none"`)
	stdout, _, _ = p.run("__complete", "issuers", "test", "")
	assert.Contains(t, stdout, "ov\tdigicert ready\n")
}
