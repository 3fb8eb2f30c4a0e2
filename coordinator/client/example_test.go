package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/shared/wire"
)

// The functions of this file are those of docs/reference/api.md; TestExamples runs them.

// connectTo makes a client of a cluster's nodes.
func connectTo(servers []string, tokenFile, rootFile string) (*client.Client, error) {
	text, err := os.ReadFile(tokenFile)
	if err != nil {
		return nil, err
	}
	token, err := apitoken.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(rootFile)
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{Servers: servers, Token: token, Roots: string(roots)})
}

// expiring writes which certificates expire within two weeks, soonest first.
func expiring(ctx context.Context, c *client.Client, out io.Writer) error {
	soon := client.ListCertificatesParams{ExpiresBefore: time.Now().Add(14 * 24 * time.Hour), Label: []string{"env=prod"}}
	for one, err := range c.AllCertificates(ctx, soon) {
		if err != nil {
			return err
		}
		fmt.Fprintln(out, one.Hostname, one.Name, one.Health)
	}
	return nil
}

// renew asks a host for a new certificate, and says what the coordinator says.
func renew(ctx context.Context, c *client.Client, agent, name string) (string, error) {
	asked, err := c.RenewCertificate(ctx, client.RenewCertificateParams{Agent: agent, Name: name})
	if problem, refused := errors.AsType[*wire.Problem](err); refused && problem.Code == wire.CodeNotFound {
		return "there is no such certificate: " + problem.Mend, nil
	}
	if err != nil {
		return "", err // client.ErrUnreachable, or another problem
	}
	return asked.State, nil
}

// watch calls changed whenever the list of agents is another one.
func watch(ctx context.Context, c *client.Client, every time.Duration, changed func(*resource.Page[resource.Agent])) error {
	var last client.Answer
	for {
		page, err := c.ListAgents(ctx, client.ListAgentsParams{Sort: "safe_until"}, client.IfNoneMatch(last.ETag), client.Note(&last))
		switch {
		case err == nil:
			changed(page)
		case !errors.Is(err, client.ErrNotModified):
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

// The functions in the page are the ones that are tested here.
func TestExamplesOfThePageAreThese(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/reference/api.md")
	require.NoError(t, err)
	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	blocks := strings.Split(string(page), "```go\n")[1:]
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		assert.Contains(t, string(source), strings.TrimSpace(code))
	}
}

func TestExamples(t *testing.T) {
	t.Parallel()
	coordinator := apitest.Start(t)
	tokenFile := t.TempDir() + "/admin.token"
	require.NoError(t, os.WriteFile(tokenFile, []byte(coordinator.Admin.Reveal()+"\n"), 0o600))
	c, err := connectTo([]string{coordinator.URL}, tokenFile, coordinator.RootFile())
	require.NoError(t, err)
	t.Cleanup(c.Close)

	web := coordinator.Agent("agent1", "web1", map[string]string{"env": "prod"})
	web.Report("later", apitest.Valid(coordinator.Now(), 300*time.Hour, "later.example.com"))
	web.Report("soon", apitest.Valid(coordinator.Now(), 200*time.Hour, "soon.example.com"))
	web.Report("far", apitest.Valid(coordinator.Now(), 900*time.Hour, "far.example.com"))
	coordinator.Agent("agent2", "db1", nil).Report("soon", apitest.Valid(coordinator.Now(), time.Hour, "db.example.com"))
	var out bytes.Buffer
	require.NoError(t, expiring(t.Context(), c, &out))
	assert.Equal(t, "web1 soon ok\nweb1 later ok\n", out.String())

	state, err := renew(t.Context(), c, "agent1", "soon")
	require.NoError(t, err)
	assert.Equal(t, "open", state)
	state, err = renew(t.Context(), c, "agent1", "none")
	require.NoError(t, err)
	assert.Contains(t, state, "there is no such certificate: ")

	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var seen []int
	require.NoError(t, watch(ctx, c, time.Millisecond, func(page *resource.Page[resource.Agent]) {
		if seen = append(seen, len(page.Items)); len(seen) == 2 {
			stop()
			return
		}
		coordinator.Agent("agent3", "web3", nil).SafeUntil(coordinator.Now())
	}))
	require.Len(t, seen, 2, "it is told of a change, and of nothing else")
	assert.Equal(t, seen[0]+1, seen[1])
}
