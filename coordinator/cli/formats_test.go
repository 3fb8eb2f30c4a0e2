package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
)

var formats = []string{"table", "json", "yaml", "csv"}

// noFormats are the commands that the test does not run in every format, and why. Whatever
// they write goes through the same functions.
var noFormats = map[string]string{
	"certctl login":                 "it changes who is logged in; it writes what whoami writes",
	"certctl context remove":        "it would take the login of the test; it writes what context list writes",
	"certctl completion bash":       "it writes a script, and no data",
	"certctl completion zsh":        "it writes a script, and no data",
	"certctl completion fish":       "it writes a script, and no data",
	"certctl completion powershell": "it writes a script, and no data",
	"certctl assignments export":    "its YAML is what apply takes: see TestExportInEveryFormat",
	"certctl ca trust":              "it needs roots to follow",
	"certctl history prune":         "it needs a database",
	"certctl issuers test":          "it needs an authority",
	"certctl issuers resume":        "it needs an authority",
	"certctl orders validations":    "it needs an authority",
	"certctl orders resolve":        "it needs an order in doubt; it writes what orders show writes",
	"certctl cluster transfer":      "it needs a second node; it writes what cluster members writes",
	"certctl cluster remove":        "it needs a second node; it writes what cluster members writes",
	"certctl cluster rotate-ca":     "it needs a cluster; it writes what cluster health writes",
	"certctl cluster diagnose":      "it needs nodes to ask; it writes one flat document",
	"certctl snapshot save":         "it needs a node's state; it writes what snapshot inspect writes",
	"certctl snapshot inspect":      "it needs a node's state",
	"certctl snapshot restore":      "it needs a node's state",
	"certctl history status":        "it needs a leader with its history",
}

// Every command writes what it shows in every format: YAML says what JSON says, in the same
// order, and CSV has a line for each item with the fields of JSON.
func TestEveryCommandWritesEveryFormat(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	web := c.Agent("web1", "web1.example.com", map[string]string{"env": "prod", "role": "web"})
	c.Agent("db1", "=db1", nil)
	web.Report("www", apitest.Valid(c.Now(), 10*day, "www.example.com", "api.example.com"))
	web.Order(apitest.OrderID("a"), "www", "ov", "www.example.com")
	for _, format := range formats { // each cancels one
		web.Order(apitest.OrderID(format), "www", "ov", "www.example.com")
	}
	assignment := p.write("x.yaml", "name: shop\nselector: env=prod\ncertificate: {names: [a.example.com]}\n")
	p.does("assignments", "apply", "-f", assignment)
	token := reads[resource.CreatedEnrollmentToken](p, "token", "create")
	api := reads[resource.CreatedAPIToken](p, "api-token", "create", "--name", "grafana", "--role", "viewer")
	turned := reads[resource.CreatedAPIToken](p, "api-token", "create", "--name", "prometheus", "--role", "viewer")
	join := reads[resource.CreatedJoinToken](p, "cluster", "join-token", "create")
	renewals := reads[resource.Renewals](p, "renew", "--all", "--selector", "*", "--over", "6h")

	lines := map[string]string{ // by command, what follows it
		"certctl status": "", "certctl whoami": "", "certctl version": "", "certctl context list": "", "certctl context show": "", "certctl context use": "default",
		"certctl agents list": "", "certctl agents show": "web1", "certctl agents commands": "web1", "certctl agents retire": "web1 --dry-run",
		"certctl certificates list": "", "certctl certificates show": "web1 www",
		"certctl assignments list": "", "certctl assignments show": "shop", "certctl assignments hosts": "shop",
		"certctl assignments apply": "-f " + assignment, "certctl assignments delete": "shop --dry-run",
		"certctl renew": "--all --selector * --over 6h --dry-run", "certctl renewals list": "", "certctl renewals show": renewals.ID, "certctl renewals cancel": renewals.ID,
		"certctl revoke": "web1 www --dry-run", "certctl orders list": "", "certctl orders show": apitest.OrderID("a"), "certctl orders retry": apitest.OrderID("a"), "certctl orders cancel": "{order} --yes",
		"certctl issuers list": "", "certctl jobs list": "", "certctl ca show": "", "certctl ca rotate": "--issuing --yes",
		"certctl cluster members": "", "certctl cluster health": "",
		"certctl cluster join-token create": "", "certctl cluster join-token list": "", "certctl cluster join-token revoke": join.ID + " --yes",
		"certctl token create": "--names **.example.com", "certctl token list": "", "certctl token revoke": token.ID,
		"certctl api-token create": "--name x --role viewer", "certctl api-token list": "", "certctl api-token revoke": api.ID, "certctl api-token rotate": turned.ID,
		"certctl audit list": "", "certctl audit show": "1", "certctl audit head": "", "certctl audit verify": "", "certctl history list": "", "certctl report sync": "--all", "certctl report trends": "", "certctl report host": "web1",
	}
	each(newProgram().root(), func(cmd *cobra.Command) {
		if cmd.HasSubCommands() || noFormats[cmd.CommandPath()] != "" {
			return
		}
		rest, there := lines[cmd.CommandPath()]
		if !assert.True(t, there, "%s: give the test a line that runs it, or say in noFormats why not", cmd.CommandPath()) {
			return
		}
		line := append(strings.Fields(cmd.CommandPath())[1:], strings.Fields(rest)...)
		p.inEveryFormat(line)
	})
	for name := range noFormats {
		_, both := lines[name]
		assert.False(t, both, name)
	}
}

// inEveryFormat runs a command in each format.
func (p *person) inEveryFormat(line []string) {
	p.t.Helper()
	written := make(map[string]string)
	for _, format := range formats {
		words := strings.ReplaceAll(strings.Join(append(line, "--output", format), " "), "{order}", apitest.OrderID(format))
		out, errs, status := p.run(strings.Fields(words)...)
		if !assert.Zero(p.t, status, "%v --output %s: %s", line, format, errs) {
			return
		}
		assert.NotEmpty(p.t, out, "%v --output %s", line, format)
		written[format] = out
	}
	var document, same any
	if assert.NoError(p.t, json.Unmarshal([]byte(written["json"]), &document), "%v", line) && assert.NoError(p.t, yaml.Unmarshal([]byte(written["yaml"]), &same), "%v: %s", line, written["yaml"]) {
		assert.Equal(p.t, keysOf(p.t, []byte(written["json"])), keysOfYAML(p.t, written["yaml"]), "%v: the same fields in the same order", line)
	}
	rows, err := csv.NewReader(strings.NewReader(written["csv"])).ReadAll()
	if !assert.NoError(p.t, err, "%v: %s", line, written["csv"]) {
		return
	}
	want := 1
	switch known := document.(type) {
	case []any:
		want = len(known)
	case map[string]any:
		if items, list := known["items"].([]any); list {
			want = len(items)
		} else if items, list := known["assignments"].([]any); list {
			want = len(items)
		}
	}
	assert.Len(p.t, rows, 1+want, "%v: a line for each item, below the names: %s", line, written["csv"])
	assert.NotContains(p.t, written["csv"], ",=db1", "%v: no cell is a formula", line)
}

// keysOf are the fields of a JSON document that are not within others, in their order.
func keysOf(t *testing.T, document []byte) []string {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(document))
	var keys []string
	first, err := decoder.Token()
	require.NoError(t, err)
	if first != json.Delim('{') {
		return nil
	}
	for decoder.More() {
		key, err := decoder.Token()
		require.NoError(t, err)
		keys = append(keys, key.(string))
		var value json.RawMessage
		require.NoError(t, decoder.Decode(&value))
	}
	return keys
}

func keysOfYAML(t *testing.T, document string) []string {
	t.Helper()
	var ordered yaml.MapSlice
	if strings.HasPrefix(document, "- ") {
		return nil
	}
	require.NoError(t, yaml.Unmarshal([]byte(document), &ordered))
	var keys []string
	for _, item := range ordered {
		keys = append(keys, item.Key.(string))
	}
	return keys
}

// What is exported as YAML is taken back by apply, and a program gets it as JSON.
func TestExportInEveryFormat(t *testing.T) {
	p := logIn(t, apitest.Start(t))
	p.does("assignments", "apply", "-f", p.write("x.yaml", "name: shop\nselector: env=prod\ncertificate: {names: [a.example.com]}\n"))
	table := p.does("assignments", "export")
	assert.Equal(t, table, p.does("assignments", "export", "-o", "yaml"))
	assert.Contains(t, p.does("assignments", "apply", "-f", p.write("y.yaml", table)), "is unchanged")
	assert.Len(t, reads[listOf[resource.Assignment]](p, "assignments", "export").Items, 1)
	assert.Contains(t, p.does("assignments", "export", "-o", "csv"), "\r\nshop,env=prod,")
}
