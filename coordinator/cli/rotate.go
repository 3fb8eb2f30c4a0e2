package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/shared/settings"
	"github.com/certctl/certctl/shared/wire"
)

// scopeText says to which hosts a token is limited.
func scopeText(scope []string) string { return first(strings.Join(scope, ","), "all") }

func (p *program) rotateAPITokenCommand() *cobra.Command {
	var grace string
	var quiet bool
	cmd := &cobra.Command{
		Use: "rotate [ID]", Short: "Give an API token another secret", Args: cobra.MaximumNArgs(1),
		Long: `Gives a token another secret; its name, role and scope stay. Without an id it is the
token that this command line uses, whatever its role; others need an admin.

The earlier secret stays good for a grace, which gives time to put the new one in its
place. One that somebody has seen who should not is better ended at once: --grace 0.
A token with a lifetime gets as much anew, unless it was made with --fixed-expiry.

The token of a context is replaced there. The new secret is kept beside the old one
before it is asked for, so that it is never lost: if the answer does not arrive,
the same command finds out what became of it. Any other token is shown once.`,
		Example: `  certctl api-token rotate
  certctl api-token rotate 3dmplskkssuxxolk --grace 2d
  certctl api-token rotate 3dmplskkssuxxolk --grace 0 --quiet > grafana.token`,
		ValidArgsFunction: firstArgument(p.offers(apiTokenIDs)),
		RunE: p.asks(func(cmd *cobra.Command, args []string, c *client.Client) error {
			var request resource.RotateAPIToken
			if cmd.Flags().Changed("grace") {
				seconds := int64(0)
				if grace != "0" {
					var err error
					if seconds, err = graceOf(grace); err != nil {
						return err
					}
				}
				request.GraceSeconds = &seconds
			}
			own, err := apitoken.Parse(p.target.login.Token.Reveal())
			if err != nil {
				return fmt.Errorf("API token: %w", err)
			}
			id := own.ID
			if len(args) == 1 {
				id = args[0]
			}
			var done *resource.RotatedAPIToken
			kept := p.target.own && id == own.ID
			if kept {
				if done, err = p.target.rotate(cmd.Context(), c, own, request); done == nil && err == nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "certctl: the rotation that was begun before is done; its secret is in the context %s now\n", plain(p.target.from))
					return nil
				}
			} else {
				done, err = c.RotateAPIToken(cmd.Context(), client.RotateAPITokenParams{ID: id}, request)
			}
			if err != nil {
				return err
			}
			p.target.rotated = id == own.ID
			return p.show(cmd, done, func(out io.Writer, now time.Time) error {
				if quiet && !kept {
					_, err := fmt.Fprintln(out, done.Token)
					return err
				}
				if err := facts(out, [][2]string{
					{"token", done.ID}, {"name", done.Name}, {"role", done.Role}, {"hosts", scopeText(done.Scope)},
					{"good until", first(moment(done.ExpiresAt, now), "it is revoked")},
					{"earlier secret", first(moment(done.EarlierUntil, now), "not good any more")},
				}); err != nil {
					return err
				}
				text := "The new secret is in the context " + plain(p.target.from) + "."
				if !kept {
					text = done.Token + "\n\nThe token is shown this once."
				}
				_, err := fmt.Fprintf(out, "\n%s\n", text)
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&grace, "grace", "1h", "how long the earlier secret stays good, up to 7d; 0 ends it at once")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the token and nothing else")
	return cmd
}

func graceOf(text string) (int64, error) {
	d, err := settings.ParseDuration(text)
	if err != nil || d < 0 || d > resource.MaxRotationGrace {
		return 0, fmt.Errorf("flag --grace %q: expected such as 2h or 7d, which is the most, or 0", text)
	}
	return int64(d / time.Second), nil
}

// rotate gives the context's token another secret, and keeps it there. What was done is
// nil if an earlier rotation, of which nobody knew what became, turns out to be done.
func (t *target) rotate(ctx context.Context, c *client.Client, own apitoken.Token, request resource.RotateAPIToken) (*resource.RotatedAPIToken, error) {
	if t.login.Next.IsSet() {
		switch begun, err := t.finished(ctx); {
		case err != nil:
			return nil, err
		case begun:
			return nil, t.change(func(l *login) { l.Token, l.Next, l.Warned = t.login.Next, settings.Secret{}, "" })
		}
	}
	next := apitoken.Renew(own.ID)
	secret := settings.NewSecret(next.Reveal())
	if err := t.change(func(l *login) { l.Next = secret }); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(next.Secret[:])
	request.SecretSHA256 = hex.EncodeToString(sum[:])
	done, err := c.RotateAPIToken(ctx, client.RotateAPITokenParams{ID: own.ID}, request)
	if refusal, ok := errors.AsType[*wire.Problem](err); ok && refusal.Status < 500 {
		return nil, errors.Join(err, t.change(func(l *login) {
			if l.Next == secret {
				l.Next = settings.Secret{}
			}
		}))
	}
	if err != nil {
		return nil, fmt.Errorf("%w; whether the token has the new secret is not known, and both are kept: \"certctl api-token rotate\" finds out", err)
	}
	if err := t.change(func(l *login) { l.Token, l.Next, l.Warned = secret, settings.Secret{}, "" }); err != nil {
		return nil, fmt.Errorf("the token has its new secret, which is kept as next_token of the context: %w; \"certctl api-token rotate\" puts it in place", err)
	}
	return done, nil
}

// finished reports whether the rotation that was begun before is done.
func (t *target) finished(ctx context.Context) (bool, error) {
	next := *t.login
	next.Token = t.login.Next
	c, err := next.client(t)
	if err != nil {
		return false, err
	}
	defer c.Close()
	_, err = c.Whoami(ctx)
	if refusal, ok := errors.AsType[*wire.Problem](err); ok && refusal.Code == wire.CodeUnauthorized {
		return false, nil
	}
	return err == nil, err
}

// warn says that the token that was used ends soon, of a context once a day.
func (t *target) warn(stderr io.Writer, now time.Time) {
	if t.connected == nil || t.rotated {
		return
	}
	end, soon := t.connected.TokenExpires()
	if !soon {
		return
	}
	mend := "\"certctl api-token rotate\" gives it another secret and as much time again"
	if end.Fixed {
		mend = "a rotation does not put that off: ask an admin for another one"
	}
	text := fmt.Sprintf("certctl: the API token ends %s; %s\n", moment(end.At, now), mend)
	if !t.own {
		fmt.Fprint(stderr, text)
		return
	}
	today := now.UTC().Format(time.DateOnly)
	if file, err := readContexts(); err != nil || file.Contexts[t.from].Warned == today {
		return
	}
	fmt.Fprint(stderr, text)
	if err := t.change(func(l *login) { l.Warned = today }); err != nil {
		fmt.Fprintf(stderr, "certctl: that this was said is not kept: %s\n", plain(err.Error()))
	}
}
