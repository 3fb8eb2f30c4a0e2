package cli

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
)

func (p *person) kept(context string) login {
	p.t.Helper()
	file, err := readContexts()
	require.NoError(p.t, err)
	return file.Contexts[context]
}

func TestRotateTheContextsToken(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	said := p.does("api-token", "rotate", "--grace", "2d")
	assert.Contains(t, said, "The new secret is in the context default.")
	assert.NotContains(t, said, "cta1.", "a secret is not printed where nobody needs it")
	kept := p.kept("default")
	assert.NotEqual(t, c.Admin.Reveal(), kept.Token.Reveal())
	assert.False(t, kept.Next.IsSet())
	assert.Contains(t, p.does("whoami"), c.Admin.ID)

	// What is not known to be done is found out by the same command, whether it was done
	// or not.
	c.FailNext(&cluster.UnknownOutcomeError{Err: errors.New("lost")})
	assert.Contains(t, p.fails(1, "api-token", "rotate"), "both are kept")
	pending := p.kept("default")
	assert.Equal(t, kept.Token, pending.Token)
	require.True(t, pending.Next.IsSet())
	p.does("api-token", "rotate")
	third := p.kept("default")
	assert.NotEqual(t, pending.Next, third.Token, "that one was not stored")
	assert.False(t, third.Next.IsSet())

	token := c.Token(fleet.RoleAdmin, 0)
	next, err := apitoken.Parse(third.Token.Reveal())
	require.NoError(t, err)
	lost := apitoken.Renew(next.ID)
	p.does("login", "--context", "other", "--server", c.URL, "--token-file", p.write("other", token.Reveal()), "--ca-file", c.RootFile())
	file, err := os.ReadFile(p.file())
	require.NoError(t, err)
	text := strings.Replace(string(file), "token: "+third.Token.Reveal(), "token: "+third.Token.Reveal()+"\n    next_token: "+lost.Reveal(), 1)
	require.NoError(t, os.WriteFile(p.file(), []byte(text), 0o600))
	require.True(t, p.kept("default").Next.IsSet())
	c.Rotate(lost)
	_, stderr, status := p.run("api-token", "rotate", "--context", "default")
	require.Zero(t, status, stderr)
	assert.Contains(t, stderr, "is done")
	assert.Equal(t, lost.Reveal(), p.kept("default").Token.Reveal())
	assert.Equal(t, token.Reveal(), p.kept("other").Token.Reveal(), "another context is left alone")
}

func TestRotateOtherTokens(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	viewer := c.Token(fleet.RoleViewer, 24*time.Hour)
	done := reads[resource.RotatedAPIToken](p, "api-token", "rotate", viewer.ID, "--grace", "0")
	assert.Equal(t, viewer.ID, done.ID)
	assert.Zero(t, done.EarlierUntil)
	t.Setenv("CERTCTL_TOKEN", done.Token)
	own := strings.TrimSpace(p.does("api-token", "rotate", "--quiet"))
	assert.True(t, strings.HasPrefix(own, "cta1."+viewer.ID+"."), "of no context: it is shown")
	assert.Contains(t, p.fails(1, "api-token", "rotate", c.Admin.ID), "needs admin")
	t.Setenv("CERTCTL_TOKEN", "")
	assert.Equal(t, c.Admin.Reveal(), p.kept("default").Token.Reveal())
	assert.Contains(t, p.fails(1, "api-token", "rotate", "--grace", "8d"), "--grace")
}

func TestTokensWithAScope(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	c.Agent("ours", "ours.example.com", map[string]string{"env": "prod"})
	c.Agent("theirs", "theirs.example.com", map[string]string{"env": "qa"})
	made := reads[resource.CreatedAPIToken](p, "api-token", "create", "--name", "prod", "--role", "operator", "--scope", "env=prod", "--scope", "env=dev", "--fixed-expiry")
	assert.Equal(t, []string{"env=dev", "env=prod"}, made.Scope)
	assert.True(t, made.FixedExpiry)
	assert.Contains(t, p.does("api-token", "list"), "env=dev,env=prod")
	assert.Contains(t, p.does("status"), "journal: ")
	t.Setenv("CERTCTL_TOKEN", made.Token)
	assert.Contains(t, p.does("whoami"), "env=dev,env=prod")
	assert.NotContains(t, p.does("status"), "journal: ", "it is not told how full the journal is")
	list := p.does("agents", "list")
	assert.Contains(t, list, "ours")
	assert.NotContains(t, list, "theirs")
	assert.Contains(t, p.fails(1, "ca", "show"), "limited to the hosts env in (dev,prod)")
}

func TestATokenThatEndsSoonIsSaid(t *testing.T) {
	c := apitest.Start(t)
	p := newPerson(t)
	token := c.Token(fleet.RoleViewer, 20*24*time.Hour)
	p.does("login", "--server", c.URL, "--token-file", p.write("token", token.Reveal()), "--ca-file", c.RootFile())
	p.does("whoami")
	c.Sleep(16 * 24 * time.Hour)
	_, stderr, status := p.run("agents", "list")
	require.Zero(t, status, stderr)
	assert.Contains(t, stderr, "the API token ends")
	assert.Contains(t, stderr, "certctl api-token rotate")
	p.does("agents", "list") // once a day
	t.Setenv("CERTCTL_TOKEN", token.Reveal())
	_, stderr, _ = p.run("whoami")
	assert.Contains(t, stderr, "the API token ends", "of no context: nobody knows whether it was said")
	t.Setenv("CERTCTL_TOKEN", "")
	p.does("api-token", "rotate")
	assert.Empty(t, p.kept("default").Warned)
	p.does("whoami")
}
