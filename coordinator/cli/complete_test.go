package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
)

// each calls a function for each command of a program.
func each(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, sub := range cmd.Commands() {
		each(sub, do)
	}
}

// arguments are the words of a usage line that stand for something.
var arguments = regexp.MustCompile(`(^|[ \[])[A-Z][A-Z]+`)

// Every word that a command takes can be completed, if only by saying that there is
// nothing to offer.
func TestEveryWordHasACompletion(t *testing.T) {
	root := newProgram().root()
	nothing := reflect.ValueOf(cobra.NoFileCompletions).Pointer()
	seen := 0
	each(root, func(cmd *cobra.Command) {
		usage, _, _ := strings.Cut(strings.TrimPrefix(cmd.Use, cmd.Name()), " -")
		if arguments.MatchString(usage) {
			seen++
			if assert.NotNil(t, cmd.ValidArgsFunction, cmd.CommandPath()) {
				assert.NotEqual(t, nothing, reflect.ValueOf(cmd.ValidArgsFunction).Pointer(), "%s: its ValidArgsFunction offers nothing for %s", cmd.CommandPath(), usage)
			}
		}
		cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			if flag.Value.Type() == "bool" {
				return
			}
			seen++
			_, there := cmd.GetFlagCompletionFunc(flag.Name)
			assert.True(t, there, "%s --%s: say in flagCompletions how its value is completed", cmd.CommandPath(), flag.Name)
		})
	})
	assert.Greater(t, seen, 100)
}

// completed is what the shell is offered for a line.
func (p *person) completed(line string) []string {
	p.t.Helper()
	stdout, _, status := p.run(append([]string{"__complete"}, strings.Split(line, " ")...)...)
	require.Zero(p.t, status)
	text := strings.TrimSpace(stdout[:strings.LastIndexByte(stdout, ':')])
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// Names come from the coordinator, with what tells them apart, and only those that begin
// with what was typed.
func TestNamesAreCompleted(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	web := c.Agent("web1", "web1.example.com", map[string]string{"env": "prod", "role": "web"})
	c.Agent("db1", "db1.example.com", map[string]string{"env": "test"})
	web.Report("www", apitest.Valid(c.Now(), 10*day, "www.example.com", "api.example.com"))
	valid := apitest.Valid(c.Now(), 10*day, "www.example.com")
	web.Order(apitest.OrderID("a"), "www", "ov", "www.example.com")
	p.does("assignments", "apply", "-f", p.write("x.yaml", "name: shop\nselector: env=prod\ncertificate: {names: [a.example.com]}\n"))
	renewals := reads[resource.Renewals](p, "renew", "--all", "--selector", "*", "--over", "6h", "--reason", "weak keys")
	enrol := reads[resource.CreatedEnrollmentToken](p, "token", "create", "--description", "for web2")
	join := reads[resource.CreatedJoinToken](p, "cluster", "join-token", "create", "--description", "c2")

	for line, want := range map[string][]string{
		"agents show ":                              {"db1\tdb1.example.com", "web1\tweb1.example.com"},
		"agents show w":                             {"web1\tweb1.example.com"},
		"agents show web1 ":                         nil,
		"agents commands d":                         {"db1\tdb1.example.com"},
		"agents list --label ":                      {"env=test", "env=prod", "role=web"},
		"agents list --label role":                  {"role=web"},
		"certificates show web1 ":                   {"www\tapi.example.com,www.example.com"},
		"certificates show db1 ":                    nil,
		"certificates list --agent we":              {"web1\tweb1.example.com"},
		"certificates list --issuer ":               {"letsencrypt\tacme"},
		"certificates list --name a":                {"api.example.com\twww on web1.example.com"},
		"certificates list --serial ":               {valid.Serial + "\twww on web1.example.com"},
		"certificates list --fingerprint ":          {valid.Fingerprint + "\twww on web1.example.com"},
		"certificates list --health ok,unk":         {"ok,unknown"},
		"renew web1 w":                              {"www\tapi.example.com,www.example.com"},
		"renew --all --selector env=p":              {"env=prod"},
		"revoke w":                                  {"web1\tweb1.example.com"},
		"orders show ":                              {apitest.OrderID("a") + "\trequested ov www web1.example.com"},
		"orders cancel " + apitest.OrderID("a")[:3]: {apitest.OrderID("a") + "\trequested ov www web1.example.com"},
		"orders show zz":                            nil,
		"orders resolve ":                           nil, // there is no doubt about this one
		"orders list --certificate w":               {"www\tapi.example.com,www.example.com"},
		"assignments show s":                        {"shop\tenv=prod"},
		"assignments export ":                       {"shop\tenv=prod"},
		"assignments export shop ":                  nil,
		"renewals show ":                            {renewals.ID + "\trunning * weak keys"},
		"token revoke " + enrol.ID[:4]:              {enrol.ID + "\tusable for web2"},
		"cluster join-token revoke ":                {join.ID + "\tusable c2"},
		"api-token revoke ":                         {c.Admin.ID + "\tfirst administrator, admin, usable"},
		"audit list --kind token":                   nil,
		"audit list --kind token.created,ag":        {"token.created,agent.enrolled"},
		"history list --actor api_token:":           {"api_token:" + c.Admin.ID},
		"context use d":                             {"default"},
		"status --context d":                        {"default"},
		"status --server ":                          {c.URL + "\tdefault"},
		"status ":                                   nil,
	} {
		assert.Equal(t, want, p.completed(line), line)
	}
	members := p.completed("cluster remove ")
	require.Len(t, members, 1)
	assert.Contains(t, members[0], "\t")

	// With what the line says of where to ask.
	viewer := c.Token(fleet.RoleViewer, 0)
	p.does("login", "--context", "other", "--server", c.URL, "--token-file", p.write("viewer", viewer.Reveal()), "--ca-file", c.RootFile())
	assert.Len(t, p.completed("agents show --context other "), 2)
	assert.Nil(t, p.completed("agents show --context none "))
	assert.Nil(t, p.completed("agents show --token-file - "), "nobody types a token into a completion")
}

// What is offered has an end, in number and in time.
func TestCompletionHasBounds(t *testing.T) {
	var list []cobra.Completion
	for i := range 2 * maxCompletions {
		list = append(list, fmt.Sprintf("a%d\tx", i/2))
	}
	list = append(list, "b\x1b\ty\x1b")
	assert.Len(t, offered(list, "a"), maxCompletions)
	assert.Equal(t, []cobra.Completion{"b \ty "}, offered(list, "b"))

	p := newPerson(t)
	held := make(chan struct{})
	flags := scripted(t, p, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done(): // whoever asked has gone
			close(held)
		case <-time.After(20 * time.Second): // nobody waits as long at a line
			assert.NoError(t, json.NewEncoder(w).Encode(resource.Page[resource.Agent]{Items: []resource.Agent{{ID: "late"}}}))
		}
	})
	assert.Nil(t, p.completed(strings.Join(append([]string{"agents", "show"}, append(flags, "")...), " ")))
	select {
	case <-held:
	case <-time.After(time.Minute):
		t.Fatal("the question is still waited for")
	}
}
