package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/orders"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var passing = []struct {
	pattern *regexp.Regexp
	stands  string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`), "TIME"},
	{regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d`), "TIME"},
	{regexp.MustCompile(`\d+ (s|min|h|d) ago`), "AGO"},
	{regexp.MustCompile(`in \d+ (s|min|h|d)`), "SOON"},
	{regexp.MustCompile(`api_token:[a-z2-7]{16}`), "api_token:ID"},
	{regexp.MustCompile(`([^ \n]) {2,}`), "$1  "},
}

// timeless is an output without what is another at each time.
func timeless(text string) string {
	for _, p := range passing {
		text = p.pattern.ReplaceAllString(text, p.stands)
	}
	return text
}

// golden compares a text with a file. With -update it writes that.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, strings.ReplaceAll(string(want), "\r\n", "\n"), text, "%s: look at the difference, then run with -update", path)
}

func idAt(stage fleet.Stage) string { return apitest.OrderID(string(stage)) }

// provers are authorities that tell what is left to prove.
type provers struct {
	list    []connector.Validation
	revokes bool
	err     error
}

func (v *provers) Validations(context.Context, string, string) ([]connector.Validation, error) {
	return v.list, v.err
}
func (v *provers) Revoke(context.Context, orders.Revocation) (bool, error) { return v.revokes, v.err }
func (*provers) Wake()                                                     {}

func TestRevokingAtAnAuthority(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	web := c.Agent("web1", "web1.example.com", nil)
	web.AtEveryStage()
	order := web.StoredOrder(idAt(fleet.StageDelivered))
	summary := apitest.Valid(c.Now(), 10*24*time.Hour, "www.example.com")
	summary.Serial, summary.Fingerprint, summary.Issuer = order.Serial, order.Fingerprint, "coordinator/ov"
	web.Report("delivered", summary)
	at := &provers{err: errors.New("no route to host")}
	c.UseOrders(at)
	said := p.does("revoke", "web1", "delivered", "--reason", "superseded", "--dry-run")
	assert.Contains(t, said, "will be revoked at its issuer ov at once; reason: superseded.")
	assert.Contains(t, said, "stays in service, revoked, until its replacement is there")
	assert.Contains(t, p.fails(1, "revoke", "web1", "delivered", "--yes"), "NOT REVOKED: no route to host")
	assert.Contains(t, p.does("orders", "show", order.ID), "; NOT REVOKED: no route to host")
	at.err = nil
	assert.Contains(t, p.does("revoke", "web1", "delivered", "--yes"), "is NOT REVOKED YET: ov has taken the request")
	at.revokes = true
	assert.Contains(t, p.does("revoke", "web1", "delivered", "--yes"), order.Serial+" is revoked at ov; the agent web1 is asked to replace delivered")
	assert.Contains(t, p.does("revoke", "web1", "delivered", "--yes"), order.Serial+" was revoked at ov before; ")
	assert.Regexp(t, `revocation: +revoked .* as api_token:\S+ wanted`, p.does("orders", "show", order.ID))
}

func TestWhatIsLeftToProve(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	c.Agent("web1", "web1.example.com", nil).AtEveryStage()
	at := &provers{list: []connector.Validation{
		{Name: "www.example.com", Method: "dns-txt-token", State: "pending", Todo: "publish the token \x1b[2J abc", Problem: "no record", Checked: time.Now().Add(-3*time.Hour - time.Minute), Next: time.Now().Add(3*time.Hour + time.Minute)},
		{Name: "api.example.com", State: "valid", Done: true, Expires: time.Now().Add(100*day + time.Hour)},
		{Name: "old.example.com", Problem: "gone"},
	}}
	c.UseOrders(at)
	table := lines(p.does("orders", "validations", idAt(fleet.StageNeedsPerson)))
	assert.Equal(t, []string{"NAME", "PROOF", "METHOD", "AT AUTHORITY", "CHECKED", "NEXT CHECK", "HOLDS", "TO DO"}, columns(table[0]))
	assert.Equal(t, []string{"www.example.com", "TO DO", "dns-txt-token", "pending", "3 h ago", "in 3 h", "-"}, columns(table[1])[:7])
	assert.True(t, strings.HasSuffix(table[1], "publish the token  [2J abc (no record)"), table[1])
	assert.Equal(t, []string{"api.example.com", "done", "-", "valid", "-", "-", "in 100 d", "-"}, columns(table[2]))
	assert.True(t, strings.HasSuffix(table[3], "see the order at the authority (gone)"), table[3])
	assert.Len(t, reads[resource.Validations](p, "orders", "validations", idAt(fleet.StageNeedsPerson)).Items, 3)
	at.list, at.err = nil, &connector.Error{Class: connector.ClassCredentials, Status: 401, Detail: "the key is not good", Mend: "mend the key"}
	said := p.fails(1, "orders", "validations", idAt(fleet.StageNeedsPerson))
	assert.Contains(t, said, "the authority of ov does not tell: ")
	assert.Contains(t, said, "the key is not good")
	assert.Contains(t, said, "; mend the key")
	at.err = orders.ErrUnsupported
	assert.Contains(t, p.fails(1, "orders", "validations", idAt(fleet.StageRequested)), "there is nothing to ask: the order is at the stage requested")
}

// What is shown of an order at each stage.
func TestOrdersAreShown(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	assert.Equal(t, "none\n", p.does("orders", "list"))
	assert.NotContains(t, p.does("status"), "ORDERS")
	c.Agent("web1", "web1.example.com", map[string]string{"env": "prod"}).AtEveryStage()

	var text strings.Builder
	for _, args := range [][]string{{"list"}, {"list", "--ended"}, {"list", "--stage", "rejected"}} {
		fmt.Fprintf(&text, "$ certctl orders %s\n%s\n", strings.Join(args, " "), p.does(append([]string{"orders"}, args...)...))
	}
	for _, stage := range fleet.Stages() {
		fmt.Fprintf(&text, "$ certctl orders show %s\n%s\n", stage, p.does("orders", "show", idAt(stage)))
	}
	golden(t, "orders.golden", timeless(text.String()))

	for _, said := range []string{p.does("status"), p.does("cluster", "diagnose", "--file", filepath.Join(p.home, "bundle.tar.gz"))} {
		assert.Contains(t, said, "1 NEEDS A PERSON: \"certctl orders list --stage needs_person\" says which")
		assert.Contains(t, said, "1 OF UNKNOWN OUTCOME: \"certctl orders list --stage unknown_outcome\" says which")
	}
	assert.Contains(t, p.does("status"), "6 open\n")
	for line, want := range map[string]int{
		"": 6, "--ended": 10, "--stage needs_person": 1, "--issuer ov": 6, "--issuer ev": 0, "--agent web1 --certificate pending": 1, "--stage delivered": 1,
	} {
		assert.Len(t, reads[listOf[resource.Order]](p, append([]string{"orders", "list"}, strings.Fields(line)...)...).Items, want, line)
	}
	assert.Equal(t, resource.OrderPending, reads[resource.Order](p, "orders", "show", "web1/"+idAt(fleet.StagePending)).Stage)
	assert.Equal(t, resource.OrderPending, reads[resource.Order](p, "orders", "show", idAt(fleet.StagePending)[:10]).Stage)
	for line, text := range map[string]string{
		"orders list --stage ready":                            `flag --stage "ready": expected requested, placing, pending, needs_person, unknown_outcome, issued, collected, delivered, rejected or cancelled`,
		"orders list --agent none":                             "there is no agent with the id none",
		"orders show zzz":                                      `there is no order whose id begins with zzz; "certctl orders list --ended" lists them all`,
		"orders show web1/none":                                "has no order at an authority with the id none",
		"orders show none/none":                                "there is no agent with the id none",
		"orders show":                                          `"certctl orders show" takes ORDER; --help shows examples`,
		"orders cancel zzz --yes":                              "there is no order whose id begins with zzz",
		"orders retry zzz":                                     "there is no order whose id begins with zzz",
		"orders resolve zzz":                                   "say what became of the order: --adopt NUMBER, --place-again or --give-up",
		"orders resolve zzz --give-up":                         "flag --note is missing",
		"orders resolve zzz --adopt=":                          "flag --adopt is empty",
		"orders resolve zzz --adopt 1":                         "flag --note is missing",
		"orders cancel zzz --note " + strings.Repeat("x", 501): "flag --note: 501 bytes; expected at most 500",
		"orders resolve zzz --give-up --place-again --note x":  "none of the others can be",
		"orders resolve zzz --give-up --note x --yes":          "there is no order whose id begins with zzz",
		"orders list --watch --every 1ms":                      "flag --interval 1ms: expected 1s or more",
	} {
		assert.Contains(t, p.fails(1, strings.Fields(line)...), text, line)
	}
	assert.Contains(t, p.fails(1, "orders", "show", ""), "the order's id is empty")
	c.Agent("web2", "web2.example.com", nil).Order(idAt(fleet.StagePending), "www", "ev", "www.example.com")
	assert.Contains(t, p.fails(1, "orders", "show", idAt(fleet.StagePending)), "several orders have an id that begins with "+idAt(fleet.StagePending)+": web2/"+idAt(fleet.StagePending)+", web1/")

	c.UseIssuers(&theIssuers{list: []resource.Issuer{
		{Name: "ov", Kind: "digicert", State: resource.IssuerPaused, Orders: 7, PausedUntil: c.Now().Add(time.Hour), PausedFor: "the API key is not accepted"},
		{Name: "ev", Kind: "sectigo", State: resource.IssuerFailing, Orders: 1, CircuitOpenUntil: c.Now().Add(time.Minute), Reason: "HTTP status 502"},
		{Name: "old", State: resource.IssuerUnknown},
		{Name: "well", Kind: "entrust", State: resource.IssuerReady, Orders: 3, LastError: "it broke off"},
	}})
	for _, said := range []string{p.does("status"), p.does("cluster", "diagnose", "--file", filepath.Join(p.home, "bundle.tar.gz"))} {
		assert.Regexp(t, `ORDERS: +7 orders waiting for issuer ov: nothing is asked until .*: the API key is not accepted; when that is mended, "certctl issuers test ov" has it go on\n`, said)
		assert.Regexp(t, `ORDERS: +1 order waiting for issuer ev: the authority fails \(HTTP status 502\)`, said)
		assert.NotContains(t, said, "issuer old")
		assert.NotContains(t, said, "issuer well")
	}
	// Nothing is done for their orders before then, whatever their own times are.
	assert.Regexp(t, `(?m)^\w+ +ov +.* pending .* paused, in 59 min `, p.does("orders", "list", "--stage", "pending", "--issuer", "ov"))
	assert.NotContains(t, p.does("orders", "list", "--stage", "pending", "--issuer", "ov", "--output", "json"), "paused")
	for line, want := range map[string]string{
		"orders list --issuer ": "ov\tdigicert paused\nev\tsectigo failing\nold\tunknown\nwell\tentrust ready",
		"orders list --stage ":  strings.Join(texts(resource.OrderStages), "\n"),
		"orders list --agent ":  "web1\tweb1.example.com\nweb2\tweb2.example.com",
		"orders resolve ":       idAt(fleet.StageUnknown) + "\tunknown_outcome ov unknown_outcome web1.example.com",
	} {
		stdout, _, status := p.run(append([]string{"__complete"}, strings.Split(line, " ")...)...)
		assert.Zero(t, status)
		assert.Equal(t, want, strings.TrimSpace(stdout[:strings.LastIndexByte(stdout, ':')]), line)
	}
	stdout, _, _ := p.run("__complete", "orders", "cancel", "")
	assert.NotContains(t, stdout, idAt(fleet.StageDelivered))
	assert.Contains(t, stdout, idAt(fleet.StageIssued))
}

func TestOrdersAreChanged(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	web := c.Agent("web1", "web1.example.com", nil)
	web.AtEveryStage()

	// What costs something is said, and done only if somebody means it.
	index := c.State().Index()
	for line, said := range map[string]string{
		"cancel " + idAt(fleet.StageRequested):                       "was not sent yet: it will be cancelled at once",
		"cancel " + idAt(fleet.StagePending):                         "until then it may still be issued, and charged",
		"cancel " + idAt(fleet.StageIssued):                          "is issued by now",
		"cancel " + idAt(fleet.StageUnknown):                         "taken back if it is found",
		"resolve --place-again --note x " + idAt(fleet.StageUnknown): "there will be two orders, and two to pay",
		"resolve --give-up --note x " + idAt(fleet.StageUnknown):     "nothing is done at the authority",
	} {
		_, errs, status := p.run(append([]string{"orders"}, strings.Fields(line)...)...)
		assert.Equal(t, 1, status, line)
		assert.Contains(t, errs, said)
		assert.Contains(t, errs, "The order "+strings.Fields(line)[len(strings.Fields(line))-1]+" at ov, for the certificate ")
		assert.Contains(t, errs, "this cannot be taken back; say --yes if you mean it")
	}
	for line, said := range map[string]string{
		"cancel --yes " + idAt(fleet.StageDelivered):                    "has ended: it is delivered",
		"resolve --adopt 1 --note x " + idAt(fleet.StagePending):        "is pending: there is no doubt to resolve",
		"resolve --give-up --note x --yes " + idAt(fleet.StageRejected): "is rejected: there is no doubt to resolve",
	} {
		assert.Contains(t, p.fails(1, append([]string{"orders"}, strings.Fields(line)...)...), said, line)
	}
	assert.Equal(t, index, c.State().Index(), "nothing was changed")

	assert.Contains(t, p.does("orders", "cancel", idAt(fleet.StageRequested), "--yes", "--note", "a mistake"), " is cancelled; ")
	assert.Equal(t, "a mistake", web.StoredOrder(idAt(fleet.StageRequested)).Brokering.Cancel.Note)
	assert.Contains(t, p.does("orders", "cancel", idAt(fleet.StagePending), "--yes"), " is to be taken back, and is at the stage pending until then; ")
	assert.Contains(t, p.does("orders", "list"), "pending, to be taken back")
	assert.Contains(t, p.does("orders", "show", idAt(fleet.StagePending)), "asked to take back:")
	c.Sleep(time.Minute)
	assert.Contains(t, p.does("orders", "retry", idAt(fleet.StageNeedsPerson)), " is looked after now; ")
	assert.False(t, web.StoredOrder(idAt(fleet.StageNeedsPerson)).Brokering.Next.After(c.Now()))
	assert.Contains(t, p.does("orders", "resolve", idAt(fleet.StageUnknown), "--adopt", " 4711 ", "--note", "seen there"), " is at the stage pending now; ")
	assert.Equal(t, fleet.OrderHandle{Order: "4711"}, web.StoredOrder(idAt(fleet.StageUnknown)).Brokering.Handle)

	for action, want := range map[string]resource.OrderStage{"--place-again": resource.OrderRequested, "--give-up": resource.OrderRejected} {
		id := apitest.OrderID(action)
		web.Order(id, "www", "ov", "www.example.com")
		web.Claim(id, apitest.NodeID)
		web.Record(id, fleet.OrderUnknown, nil)
		assert.Equal(t, want, reads[resource.Order](p, "orders", "resolve", id, action, "--note", "looked", "--yes").Stage)
	}
}

// Of an order of unknown outcome all that is known is laid out, whatever that is.
func TestAdviceOnUnknownOutcomes(t *testing.T) {
	at := time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC)
	o := resource.Order{
		ID: "3f9a", AgentID: "web1", Issuer: "ov", Names: []string{"www.example.com"}, PublicKey: "0b0b", Stage: resource.OrderUnknown,
		RequestedAt: at, PlacingAt: at.Add(time.Minute), PlacedBy: "c1", Reference: "aaaa", UnknownSince: at.Add(2 * time.Minute),
	}
	var text strings.Builder
	say := func(title string) {
		fmt.Fprintf(&text, "== %s\n%s\n\n", title, strings.Join(unknownAdvice(&o, at.Add(time.Hour)), "\n"))
	}
	say("a node that has died")
	o.LastError, o.LastErrorAt, o.NextAt = "connection reset", at.Add(2*time.Minute), at.Add(2*time.Hour)
	o.Searches, o.SearchedAt = 1, at.Add(3*time.Minute)
	say("an answer that was lost, and one search")
	o.NextAt, o.Searches = time.Time{}, 0
	o.Candidates, o.Detail = []resource.OrderHandle{{Order: "1"}, {Certificate: "2"}}, "2 orders at the authority may be this one"
	say("a search that found two")
	o.Candidates, o.RestoredAt = nil, at.Add(24*time.Hour)
	o.Mend, o.Detail = "look in the console", "this authority cannot be searched for a lost order"
	say("out of a backup")
	golden(t, "unknown.golden", text.String())
	assert.Equal(t, &resource.OrderHandle{Certificate: "2", Order: ""}, candidate(&resource.Order{Candidates: []resource.OrderHandle{{Order: "1"}, {Certificate: "2"}}}, "2"))
}

func TestOrdersAreWatched(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	web := c.Agent("web1", "web1.example.com", nil)
	id := apitest.OrderID("watched")
	web.Order(id, "www", "ov", "www.example.com")
	text := new(apitest.Text)
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		var errs apitest.Text
		assert.Zero(t, Execute([]string{"orders", "list", "--watch", "--interval", "1s"}, text, &errs), errs.String())
	}()
	has := func(part string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(text.String(), part) }, time.Minute, 10*time.Millisecond, "%s\n%s", part, text.String())
	}
	has("www  requested")
	web.Claim(id, apitest.NodeID)
	has("www  placing")
	p.does("orders", "cancel", id, "--yes")
	has("placing, to be taken back")
	web.Record(id, fleet.OrderPending, func(r *fleet.RecordOrder) { r.Brokering.Handle.Order = "1" })
	web.Record(id, fleet.OrderCancelled, nil)
	has("not listed any more\n")
	select {
	case <-seen:
	case <-time.After(time.Minute):
		t.Fatal("the watch does not end")
	}
	assert.True(t, strings.HasSuffix(text.String(), "  none\n"), text.String())
}

// Issuers are for all hosts: who is limited to some lists their orders all the same.
func TestOrdersAreListedForSomeHosts(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	c.Agent("web1", "web1.example.com", map[string]string{"env": "prod"}).AtEveryStage()
	made := reads[resource.CreatedAPIToken](p, "api-token", "create", "--name", "prod", "--role", "viewer", "--scope", "env=prod")
	some := newPerson(t)
	some.does("login", "--server", c.URL, "--token-file", some.write("token", made.Token), "--ca-file", c.RootFile())
	assert.Len(t, lines(some.does("orders", "list")), 7)
}
