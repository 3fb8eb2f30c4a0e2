package cli

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
)

// Commands take the name of a host for the id of its agent, as long as there is one.
func TestAgentsByTheNamesOfTheirHosts(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	web := c.Agent("first", "web1.example.com", nil)
	web.Report("www", apitest.Valid(c.Now(), 60*day, "www.example.com"))
	c.Agent("another", "web1.example.com.test", nil).Report("www", apitest.Valid(c.Now(), 60*day, "www.example.com"))
	// An id comes before a name.
	c.Agent("web2.example.com", "x.example.com", nil)
	c.Agent("named", "web2.example.com", nil)

	for _, line := range [][]string{
		{"agents", "show", "WEB1.example.com"}, {"certificates", "show", "web1.example.com", "www"}, {"report", "host", "web1.example.com"},
		{"renew", "web1.example.com", "www"}, {"revoke", "web1.example.com", "www", "--dry-run"},
	} {
		assert.Contains(t, p.does(line...), "first", "%q", line)
	}
	assert.Contains(t, p.does("agents", "commands", "web1.example.com"), "renew")
	assert.Equal(t, "web2.example.com", reads[resource.AgentDetail](p, "agents", "show", "web2.example.com").ID)
	assert.Equal(t, "retired", reads[resource.RetiredAgent](p, "agents", "retire", "web1.example.com.test", "--yes").State)
	assert.Contains(t, p.fails(1, "agents", "show", "web1.example.com.test"), "web1.example.com.test", "a host that is retired")

	c.Agent("second", "web1.example.com", nil)
	text := p.fails(1, "renew", "web1.example.com", "www")
	assert.Contains(t, text, "2 active hosts have the name web1.example.com")
	assert.Contains(t, text, "first")
	assert.Contains(t, text, "second")
}

func TestWhatLooksLikeAnAgentID(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"u53n5nbgbmcuo7ob": true, "u53n5nbgbmcuo7o": false, "u53n5nbgbmcuo7ob2": false, "web1.example.com": false, "U53N5NBGBMCUO7OB": false, "u53n5nbgbmcuo718": false, "": false,
	} {
		assert.Equal(t, want, looksLikeAgentID(text), text)
	}
}
