package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
)

const ordersPage = "../../docs/operator/orders.md"

var consoleBlock = regexp.MustCompile("(?s)```console\n\\$ ([^\n]+)\n(.*?)```")

// words are those of a command as a shell would take it.
func words(command string) []string {
	var list []string
	for _, word := range regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(command, -1) {
		list = append(list, strings.Trim(word, `"`))
	}
	return list
}

// What the page on orders shows is what the commands print, one after the other. With
// -update the test writes it.
func TestTheOrdersPageShowsWhatIsPrinted(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	ordersOfThePage(c)
	source, err := os.ReadFile(ordersPage)
	require.NoError(t, err)
	page := strings.ReplaceAll(string(source), "\r\n", "\n")
	seen := 0
	fresh := consoleBlock.ReplaceAllStringFunc(page, func(block string) string {
		seen++
		parts := consoleBlock.FindStringSubmatch(block)
		command := words(parts[1])
		require.Equal(t, "certctl", command[0])
		printed := p.does(command[1:]...)
		if !*update {
			assert.Equal(t, timeless(parts[2]), timeless(printed), "$ %s: look at the difference, then run with -update", parts[1])
		}
		return "```console\n$ " + parts[1] + "\n" + printed + "```"
	})
	assert.Equal(t, 7, seen)
	if *update {
		require.NoError(t, os.WriteFile(ordersPage, []byte(fresh), 0o644))
	}
	// The commands that stand in the text are ones that there are.
	for _, found := range regexp.MustCompile("certctl ((?:orders|jobs|issuers) [a-z]+)").FindAllStringSubmatch(page, -1) {
		help, stderr, status := p.run(append(strings.Fields(found[1]), "--help")...)
		assert.Zero(t, status, "%s: %s", found[0], stderr)
		assert.Contains(t, help, "Usage:\n  certctl "+found[1], found[0])
	}
}

// ordersOfThePage are the orders that the page is about.
func ordersOfThePage(c *apitest.Coordinator) {
	c.Sleep(-2*time.Hour - time.Minute) // it was a while ago
	now := c.Now().UTC()
	web := c.Agent("u53n5nbgbmcuo7ob", "web1.example.com", map[string]string{"env": "prod"})
	for _, o := range []struct {
		id, certificate, name string
		state                 fleet.OrderState
		learnt                func(r *fleet.RecordOrder)
	}{
		{"9c1e4f0a7b2d4e55a1c07d3f8e6b9012", "shop", "shop.example.com", fleet.OrderNeedsPerson, func(r *fleet.RecordOrder) {
			r.Brokering.Handle, r.Brokering.Raw = fleet.OrderHandle{Order: "104698", Request: "98211"}, "needs_approval"
			r.Brokering.Mend = "have an administrator of the CertCentral account approve the request of this order, or have requests approved by themselves there"
			r.Brokering.Polls, r.Brokering.Next = 7, now.Add(160*time.Minute)
		}},
		{"5b20d1c8e9f34a7f8b6655a0c4d2e718", "api", "api.example.com", fleet.OrderUnknown, func(r *fleet.RecordOrder) {
			r.Brokering.Failure, r.Brokering.FailedAt, r.Brokering.Failures = "read tcp 192.0.2.10:44312->198.51.100.7:443: read: connection reset by peer", now, 1
			r.Brokering.Detail, r.Brokering.Next = "this authority cannot be searched for a lost order", time.Time{}
		}},
		{"e47700a3c2d94b0fb5f1c6d2a8e03345", "www", "www.example.com", fleet.OrderPending, func(r *fleet.RecordOrder) {
			r.Brokering.Handle, r.Brokering.Raw, r.Brokering.Polls, r.Brokering.Next = fleet.OrderHandle{Order: "104702"}, "processing", 31, now.Add(128*time.Minute)
		}},
	} {
		web.OrderWithKey(o.id, o.certificate, "ov", apitest.OrderID("key of "+o.certificate)+apitest.OrderID("more of "+o.certificate), o.name)
		web.Claim(o.id, "c1.example.com")
		web.Record(o.id, o.state, o.learnt)
	}
	c.Sleep(2*time.Hour + time.Minute)
	now = c.Now().UTC()
	c.UseIssuers(&theIssuers{list: []resource.Issuer{
		{Name: "ev", Kind: "sectigo", State: resource.IssuerReady, LastAnswerAt: now.Add(-3 * time.Minute), PollMaxWaitSeconds: 600},
		{
			Name: "ov", Kind: "digicert", State: resource.IssuerPaused, Orders: 3, Due: 2, LastAnswerAt: now.Add(-2 * time.Hour), PollMaxWaitSeconds: 600,
			PausedUntil: now.Add(9 * time.Minute), PausedFor: "the authority answered 401 Unauthorized: access_denied: check the issuer's API key and what its user may do",
			LastError: "access_denied", LastErrorAt: now.Add(-90 * time.Second),
		},
	}})
}
