package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

func (p *program) issuersCommand() *cobra.Command {
	return group(&cobra.Command{Use: "issuers", Short: "Accounts at authorities that the coordinator orders at: list, test, resume", Long: `An issuer is an account at an authority, in the settings of the coordinator. These
commands show whether its authority answers, try its credentials, and end a pause.`},
		p.listIssuersCommand(), p.testIssuerCommand(), p.resumeIssuerCommand())
}

func (p *program) listIssuersCommand() *cobra.Command {
	var page listFlags
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the issuers and how they stand", Args: sharedcli.NoArgs,
		Long: `Lists the issuers in the settings of the coordinator that leads: whether their
authorities are asked, how many orders wait for them, and what went wrong last. The
built-in CA is none of them; "certctl ca show" shows it.

STATE is ready; paused, while the authority limits the account or does not accept its
credentials; failing, while it does not answer and is hardly asked; or unknown, for an
issuer that orders name and the settings do not have. No order fails for any of these:
they wait.`,
		Example: `  certctl issuers list
  certctl issuers list --output json | jq -r '.items[] | select(.state != "ready").name'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printList(p, cmd, &page, onePageOf(func(ctx context.Context, c *client.Client) (*resource.Page[resource.Issuer], error) {
				return c.ListIssuers(ctx)
			}), issuerListing)
		},
	}
	page.bindWhole(cmd)
	page.watch.bind(cmd, "")
	return cmd
}

var issuerListing = listing[resource.Issuer]{
	header: []string{"NAME", "KIND", "STATE", "ORDERS", "DUE", "LAST ANSWER", "LAST ERROR", "POLL BUDGET"},
	cells: func(one *resource.Issuer, now time.Time) []string {
		failed := ""
		if one.LastError != "" {
			failed = distance(one.LastErrorAt, now)
		}
		budget := ""
		if one.PollMaxWaitSeconds > 0 {
			budget = span(time.Duration(one.PollMaxWaitSeconds) * time.Second)
		}
		return []string{
			one.Name, one.Kind, string(one.State), strconv.Itoa(one.Orders), strconv.Itoa(one.Due), distance(one.LastAnswerAt, now), failed, budget,
		}
	},
	after: tellIssuers,
	id:    func(one *resource.Issuer) string { return one.Name },
}

// tellIssuers says what there is to say of each issuer.
func tellIssuers(out io.Writer, list []resource.Issuer, now time.Time) error {
	for i := range list {
		if text := issuerText(&list[i], now); text != "" {
			fmt.Fprintf(out, "\n%s: %s\n", plain(list[i].Name), plain(text))
		}
	}
	return nil
}

// issuerText says why an issuer is not asked, or what went wrong last.
func issuerText(one *resource.Issuer, now time.Time) string {
	switch one.State {
	case resource.IssuerPaused:
		return fmt.Sprintf("nothing is asked until %s: %s; when that is mended, \"certctl issuers test %s\" has it go on", moment(one.PausedUntil, now), one.PausedFor, one.Name)
	case resource.IssuerFailing:
		return fmt.Sprintf("the authority fails (%s); it is tried again at %s", one.Reason, moment(one.CircuitOpenUntil, now))
	case resource.IssuerUnknown:
		return "orders name this issuer, and the settings of the coordinator that leads do not have it; put it there, or cancel the orders"
	case resource.IssuerReady:
	}
	if one.LastError == "" {
		return ""
	}
	return fmt.Sprintf("last error, %s: %s", distance(one.LastErrorAt, now), one.LastError)
}

// errAccount says that an issuer's account cannot be used.
var errAccount = errors.New("the account cannot be used")

func (p *program) testIssuerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "test NAME", Short: "Find out whether an issuer's account can be used", Args: sharedcli.ExactArgs(1),
		Long: `Has the coordinator that leads ask the authority whether the account can be used, with
the credentials as they are now. Nothing is ordered, and nothing changes at the
authority. It takes 20 seconds at most.

What is shown as a warning does not keep the account from being used, and will keep
orders waiting: a product that needs approval, names that are not validated, a quota
that is nearly used up, a client certificate that ends soon.

An account that was paused is asked again when the test goes well.

Exit status: 0 the account can be used, 1 it cannot, 2 the coordinator cannot be reached.`,
		Example: `  certctl issuers test digicert-ov
  certctl issuers test digicert-ov --output json | jq -r '.warnings[]'`,
		ValidArgsFunction: p.completeIssuers(),
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			if p.output.Human() {
				fmt.Fprintf(cmd.ErrOrStderr(), "certctl: asking the authority of %s ...\n", plain(args[0]))
			}
			done, err := c.TestIssuer(cmd.Context(), client.TestIssuerParams{Name: args[0]})
			if err != nil {
				return err
			}
			if err := p.show(cmd, done, func(out io.Writer, _ time.Time) error { return showIssuerTest(out, done) }); err != nil {
				return err
			}
			if done.OK {
				return nil
			}
			return fmt.Errorf("%s: %w: %s", done.Name, errAccount, done.Error)
		}),
	}
}

func showIssuerTest(out io.Writer, done *resource.IssuerTest) error {
	verdict := "can be used"
	if !done.OK {
		verdict = "CANNOT BE USED"
	}
	lines := [][2]string{{"issuer", fmt.Sprintf("%s (%s)", done.Name, done.Kind)}, {"the account", verdict}}
	add := func(name, value string) {
		if value != "" {
			lines = append(lines, [2]string{name, value})
		}
	}
	add("name there", done.Account)
	for _, fact := range done.Facts {
		add(plain(fact.Name), fact.Value)
	}
	add("error", done.Error)
	add("kind of error", done.Class)
	add("what to do", done.Mend)
	add("took", (time.Duration(done.TookMillis) * time.Millisecond).String())
	if err := facts(out, lines); err != nil {
		return err
	}
	for _, warning := range done.Warnings {
		fmt.Fprintf(out, "\nwarning: %s\n", plain(warning))
	}
	if done.Resumed {
		fmt.Fprintln(out, "\nnothing was asked of it before; its orders go on now")
	}
	return nil
}

func (p *program) resumeIssuerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resume NAME", Short: "Have an issuer's authority be asked again at once", Args: sharedcli.ExactArgs(1),
		Long: `Ends the pause of an account whose credentials were refused or that the authority
limits, and has an authority that failed be asked again. "test" does so too when the
account can be used.`,
		Example:           `  certctl issuers resume digicert-ov`,
		ValidArgsFunction: p.completeIssuers(),
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			one, err := c.ResumeIssuer(cmd.Context(), client.ResumeIssuerParams{Name: args[0]})
			if err != nil {
				return err
			}
			return p.show(cmd, one, func(out io.Writer, now time.Time) error {
				if err := table(out, issuerListing.header, [][]string{issuerListing.cells(one, now)}); err != nil {
					return err
				}
				return tellIssuers(out, []resource.Issuer{*one}, now)
			})
		}),
	}
}
