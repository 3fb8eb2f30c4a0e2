package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

func (p *program) showOrderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ORDER", Short: "Show one order, and what to do about it", Args: sharedcli.ExactArgs(1), ValidArgsFunction: p.completeOrders(client.ListOrdersParams{}),
		Long: `Shows an order and all that is known of it at its authority. Where a person has to act
it says what is to be done, and the commands to type then.

` + whichOrder,
		Example: `  certctl orders show 3f9a1c0b7d2e
  certctl orders show u53n5nbgbmcuo7ob/3f9a1c0b7d2e4a5690b1c2d3e4f50617`,
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			o, err := findOrder(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			return p.showOrder(cmd, o)
		}),
	}
	return cmd
}

func (p *program) showOrder(cmd *cobra.Command, o *resource.Order) error {
	return p.show(cmd, o, func(out io.Writer, now time.Time) error {
		if err := facts(out, orderFacts(o, now)); err != nil {
			return err
		}
		var advice []string
		switch {
		case o.Stage == resource.OrderUnknown:
			advice = unknownAdvice(o, now)
		case o.Stage == resource.OrderNeedsPerson:
			advice = personAdvice(o)
		case o.Stage == resource.OrderRejected && o.Refusal != nil && o.Refusal.Mend != "":
			advice = []string{"To do: " + o.Refusal.Mend}
		}
		if len(advice) == 0 {
			return nil
		}
		for i, line := range advice {
			advice[i] = strings.TrimRight(plain(line), " ")
		}
		_, err := fmt.Fprintf(out, "\n%s\n", strings.Join(advice, "\n"))
		return err
	})
}

func orderFacts(o *resource.Order, now time.Time) [][2]string {
	var pairs [][2]string
	add := func(name, value string) {
		if value != "" {
			pairs = append(pairs, [2]string{name, value})
		}
	}
	add("order", o.ID)
	stage := stageText(o)
	if since := stageSince(o); !since.IsZero() {
		stage += ", since " + moment(since, now)
	}
	add("stage", stage)
	agent := o.AgentID
	if o.AgentRetired {
		agent += ", RETIRED"
	}
	add("certificate", o.Certificate+" on "+first(o.Hostname, "a host that is gone")+" ("+agent+")")
	add("labels", labelText(o.Labels))
	add("issuer", o.Issuer)
	add("names", strings.Join(o.Names, ", "))
	add("public key", o.PublicKey)
	add("requested", moment(o.RequestedAt, now))
	if !o.PlacingAt.IsZero() {
		add("placed", fmt.Sprintf("%s, by node %s; attempt %d", moment(o.PlacingAt, now), o.PlacedBy, o.Attempts))
	}
	add("our reference", o.Reference)
	add("number at the authority", handleText(o.Handle))
	add("renews", handleText(o.Renews))
	add("authority's state", o.AuthorityState)
	if o.Stage != resource.OrderUnknown { // then it is what a search came to: see below
		add("authority says", o.Detail)
	}
	if o.Polls > 0 {
		text := counted(int(o.Polls), "time", "times")
		if o.Failures > 0 {
			text += "; " + counted(int(o.Failures), "question without an answer at last", "questions in a row without an answer at last")
		}
		if o.Slow && o.Open {
			text += "; at a slow pace by now"
		}
		add("asked", text)
	}
	if o.LastError != "" {
		add("last error", o.LastError+" ("+distance(o.LastErrorAt, now)+")")
	}
	if o.Open {
		add("next", first(nextText(o, now), "nothing happens by itself: see below"))
	}
	if o.Refused > 0 {
		add("CERTIFICATES REFUSED", strconv.FormatUint(uint64(o.Refused), 10)+": they were for another key, or without the names")
	}
	if c := o.Cancel; c != nil {
		text := moment(c.At, now) + ", by " + c.By
		if c.Note != "" {
			text += ": " + c.Note
		}
		add("asked to take back", text)
	}
	add("issued", moment(o.IssuedAt, now))
	add("collected", moment(o.CollectedAt, now))
	add("delivered", moment(o.DeliveredAt, now))
	if o.Serial != "" {
		add("serial number", o.Serial)
		add("expires", moment(o.NotAfter, now))
	}
	if r := o.Revocation; r != nil {
		text := "asked for " + moment(r.At, now) + ", by " + r.By
		switch {
		case !r.DoneAt.IsZero():
			text = "revoked " + moment(r.DoneAt, now) + ", as " + r.By + " wanted"
		case r.Failure != "":
			text += "; NOT REVOKED: " + r.Failure
		case !r.TakenAt.IsZero():
			text += "; NOT REVOKED YET: the authority decides later"
		default:
			text += "; NOT KNOWN what came of it: ask again"
		}
		add("revocation", text)
	}
	if o.Refusal != nil {
		add("why", o.Refusal.Detail)
	}
	return pairs
}

// nextText is when something is done about an order next by itself.
func nextText(o *resource.Order, now time.Time) string {
	switch {
	case o.NextAt.IsZero():
		return ""
	case !o.NextAt.After(now):
		return "now"
	}
	return moment(o.NextAt, now)
}

// handleText is how the authority names an order.
func handleText(h *resource.OrderHandle) string {
	if h == nil {
		return ""
	}
	var parts []string
	for _, part := range [][2]string{{"order", h.Order}, {"certificate", h.Certificate}, {"request", h.Request}} {
		if part[1] != "" {
			parts = append(parts, part[0]+" "+part[1])
		}
	}
	return strings.Join(parts, ", ")
}

// personAdvice is what is to be done about an order that needs a person.
func personAdvice(o *resource.Order) []string {
	return []string{
		"To do: " + first(o.Mend, "the authority does not say what; look at the order there, by its number"),
		"",
		"It goes on by itself when that is done. To have the authority asked at once:",
		"  certctl orders retry " + orderName(o),
		"To see what is left to prove of its names, where the authority tells:",
		"  certctl orders validations " + orderName(o),
		"If the certificate is not wanted any more:",
		"  certctl orders cancel " + orderName(o) + " --note \"why\"",
	}
}

// stamp is a time as it is looked up in the records of others.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// unknownAdvice lays out what is known of an order of which nobody knows whether the
// authority has it, what to look up there, and what to type for each finding.
func unknownAdvice(o *resource.Order, now time.Time) []string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	name := orderName(o)

	say("What is known")
	if o.RestoredAt.IsZero() {
		say("  The order was sent to the authority at %s or a little later, by node %s.", stamp(o.PlacingAt), o.PlacedBy)
		if o.LastError != "" {
			say("  Then, at %s: %s", stamp(o.LastErrorAt), o.LastError)
		} else {
			say("  No answer was recorded: the node ended, or another one has taken over.")
		}
		say("  So the authority may have the order, and may not. It is not sent again before that is known.")
	} else {
		say("  The order came out of a backup at %s, and may have been sent after that backup was made.", stamp(o.RestoredAt))
		say("  So the authority may have the order, and may not. It is not sent again before that is known.")
	}
	switch {
	case len(o.Candidates) > 0:
		say("  A search at the authority has found more than one order that may be it: see below.")
	case o.Searches > 0:
		say("  %s at the authority found nothing, the first at %s.", counted(int(o.Searches), "search", "searches"), stamp(o.SearchedAt))
	case o.Detail == "":
		say("  It was not searched for at the authority yet.")
	}
	if o.Detail != "" {
		say("  Of the search: %s.", o.Detail)
	}
	if !o.NextAt.IsZero() {
		say("  It is searched for by itself (next: %s); wait for that before you do anything.", nextText(o, now))
	}

	say("")
	say("What to look up at the authority (issuer %s)", o.Issuer)
	if o.Mend != "" && !strings.Contains(o.Mend, o.ID) { // else it is all of this in one line
		say("  %s", o.Mend)
	}
	say("  an order with the reference      %s", o.Reference)
	say("  or one for the names             %s", strings.Join(o.Names, ", "))
	say("  with the public key (SHA-256)    %s", o.PublicKey)
	if o.RestoredAt.IsZero() {
		say("  that came in from                %s", stamp(o.PlacingAt.Add(-clockLeeway)))
		say("  until                            %s", stamp(latestOf(o.UnknownSince, o.PlacingAt).Add(clockLeeway)))
	} else {
		say("  that came in after               %s", stamp(o.RequestedAt.Add(-clockLeeway)))
	}

	say("")
	say("What to type then")
	if len(o.Candidates) > 0 {
		say("  It is one of these:")
		for i := range o.Candidates {
			h := &o.Candidates[i]
			say("    certctl orders resolve %s --adopt %s --note \"how you know\"", name, first(h.Order, h.Certificate, h.Request))
		}
	} else {
		say("  The authority has it, under a number:")
		say("    certctl orders resolve %s --adopt NUMBER --note \"how you know\"", name)
	}
	say("  The authority does not have it, and will not show it later:")
	say("    certctl orders resolve %s --place-again --note \"how you know\"", name)
	say("  The certificate is not wanted any more (an order that is there has to be cancelled there):")
	say("    certctl orders resolve %s --give-up --note \"why\"", name)
	return lines
}

// clockLeeway is by how much an authority's clock may differ from ours.
const clockLeeway = 5 * time.Minute

func latestOf(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
