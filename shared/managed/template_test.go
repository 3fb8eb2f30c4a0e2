package managed_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/settings"
)

const whole = `
names: ["${hostname}", "www.${label.site}.example.com", fixed.example.com]
issuer: letsencrypt
key: rsa-2048
lifetime: 30d
deployments:
  - id: nginx
    files:
      fullchain: /etc/ssl/${label.site}/www.pem
      key: /etc/ssl/${label.site}/www.key
      key_mode: 0640
      create_directories: true
    check: [sh, -c, "echo ${HOME}"]
    verify: {address: "127.0.0.1:${label.port}", server_name: "${hostname}"}
  - files: {combined: "C:\\tls\\${hostname}.pem"}
`

func template(t *testing.T, text string) *managed.Template {
	t.Helper()
	parsed, err := managed.ParseTemplate("www.yaml", []byte(text))
	require.NoError(t, err)
	return parsed
}

func TestFill(t *testing.T) {
	values := managed.Values{Hostname: "web1.example.com", Labels: map[string]string{"site": "north", "port": "8443"}}
	certificate, text, err := template(t, whole).Fill(values)
	require.NoError(t, err)
	assert.Equal(t, []string{"web1.example.com", "www.north.example.com", "fixed.example.com"}, certificate.Names)
	assert.Equal(t, "/etc/ssl/north/www.pem", certificate.Deployments[0].Files.FullChain)
	assert.Equal(t, `C:\tls\web1.example.com.pem`, certificate.Deployments[1].Files.Combined)
	assert.Equal(t, "127.0.0.1:8443", certificate.Deployments[0].Verify.Address)
	assert.Equal(t, "web1.example.com", certificate.Deployments[0].Verify.ServerName)
	assert.Equal(t, []string{"sh", "-c", "echo ${HOME}"}, certificate.Deployments[0].Check, "commands are never touched")

	// What the agent reads is what the coordinator meant, and without a rest.
	again := template(t, string(text))
	assert.Equal(t, certificate, again.Certificate())
	assert.Empty(t, again.Certificate().Placeholders())
	assert.JSONEq(t, string(text), string(again.JSON()))
	assert.NotContains(t, string(text), "patience", "what was left to its default is left to the agent")
}

func TestATemplateHasOneForm(t *testing.T) {
	first := template(t, whole)
	require.True(t, json.Valid(first.JSON()))
	assert.Equal(t, string(first.JSON()), string(template(t, string(first.JSON())).JSON()))
	other := "# a comment\n" + strings.Replace(whole, "lifetime: 30d", "lifetime: 720h", 1)
	assert.Equal(t, string(first.JSON()), string(template(t, other).JSON()))
	assert.NotEqual(t, string(first.JSON()), string(template(t, strings.Replace(whole, "30d", "31d", 1)).JSON()))
}

func TestPlaceholdersWithoutAValue(t *testing.T) {
	parsed := template(t, whole)
	for name, c := range map[string]struct {
		values managed.Values
		says   string
	}{
		"no label":             {managed.Values{Hostname: "a", Labels: map[string]string{"port": "1"}}, `names[1]: the host has no label "site"`},
		"no hostname":          {managed.Values{Labels: map[string]string{"site": "a", "port": "1"}}, "names[0]: the host has not said its name"},
		"a path that leads up": {managed.Values{Hostname: "a", Labels: map[string]string{"site": "..", "port": "1"}}, "cannot stand in a path"},
		"a path with a slash":  {managed.Values{Hostname: "a", Labels: map[string]string{"site": "a/b", "port": "1"}}, "cannot stand in a path"},
		"no name":              {managed.Values{Hostname: "a b", Labels: map[string]string{"site": "a", "port": "1"}}, "names[0]: "},
		"no port":              {managed.Values{Hostname: "a", Labels: map[string]string{"site": "a", "port": "x"}}, "verify.address: cannot use"},
		"a placeholder":        {managed.Values{Hostname: "${hostname}", Labels: map[string]string{"site": "a", "port": "1"}}, "is not plain text"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := parsed.Fill(c.values)
			require.ErrorContains(t, err, c.says)
		})
	}
	var undefined *managed.UndefinedError
	_, _, err := parsed.Fill(managed.Values{Hostname: "a"})
	require.ErrorAs(t, err, &undefined)
	assert.Equal(t, "label.site", undefined.Variable)
}

func TestDefinitionsAreReadStrictly(t *testing.T) {
	for text, says := range map[string]string{
		"names: [a.example]\nisuer: x": `www.yaml:2:1: isuer: unknown key`,
		"names: [a.example]\nname: x":  `www.yaml:2:1: name: unknown key`,
		"issuer: x":                    "names: missing",
		"names: [\"${host}\"]":         `www.yaml:1:9: names[0]: cannot use ${host}; expected ${hostname} or ${label.KEY}`,
		"names: [\"${hostname\"]":      "no closing brace",
		"names: [\"${label.}\"]":       "cannot use ${label.}",
		"names: [a b]":                 "www.yaml:1:9: names[0]",
		"names: [a.example]\ndeployments:\n  - files: {key: tls.key}":                            "www.yaml:3:18: deployments[0].files.key: cannot use \"tls.key\"; expected an absolute path",
		"names: [a.example]\ndeployments:\n  - files: {key: \"${label.dir}/tls.key\"}":           "expected an absolute path",
		"names: [a.example]\ndeployments:\n  - files: {key: \"/a\\0b\"}":                         "NUL",
		"names: [a.example]\ndeployments:\n  - files: {key: /a}\n    verify: {address: nowhere}": "verify.address",
	} {
		_, err := managed.ParseTemplate("www.yaml", []byte(text))
		require.ErrorContains(t, err, says, text)
	}
	_, err := managed.ParseTemplate("www.yaml", []byte("names: [a.example]\nprofile: "+strings.Repeat("x", managed.MaxTemplateBytes)))
	require.ErrorContains(t, err, "expected at most")
	var problems *settings.Error
	_, err = managed.ParseTemplate("www.yaml", []byte("a: 1\nb: 2"))
	require.ErrorAs(t, err, &problems)
	assert.Len(t, problems.Problems, 3)
}

func FuzzFill(f *testing.F) {
	f.Add(whole, "web1", "north")
	f.Add(`{"names":["a${label.x}b"]}`, "", "x")
	f.Fuzz(func(t *testing.T, text, hostname, label string) {
		parsed, err := managed.ParseTemplate("f", []byte(text))
		if err != nil {
			return
		}
		values := managed.Values{Hostname: hostname, Labels: map[string]string{"site": label, "port": "1", "x": label}}
		certificate, filled, err := parsed.Fill(values)
		if err != nil {
			return
		}
		again, err := managed.ParseTemplate("filled", filled)
		require.NoError(t, err, "%s", filled)
		assert.Equal(t, certificate, again.Certificate())
		assert.Empty(t, certificate.Placeholders())
	})
}

func BenchmarkFill(b *testing.B) {
	parsed, err := managed.ParseTemplate("www.yaml", []byte(whole))
	require.NoError(b, err)
	values := managed.Values{Hostname: "web1.example.com", Labels: map[string]string{"site": "north", "port": "8443"}}
	for b.Loop() {
		if _, _, err := parsed.Fill(values); err != nil {
			b.Fatal(err)
		}
	}
}
