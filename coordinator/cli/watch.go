package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/wire"
)

// watching is the two flags of what can be watched.
type watching struct {
	on    bool
	every time.Duration
}

func (w *watching) bind(cmd *cobra.Command, until string) {
	cmd.Flags().BoolVar(&w.on, "watch", false, "go on until "+until)
	cmd.Flags().DurationVar(&w.every, "every", 5*time.Second, "how often --watch looks")
}

// errWatched ends a watch that has come to its end.
var errWatched = errors.New("watched to the end")

// watch looks at once and then again and again, until a look is the last one or
// fails. A coordinator that is away, or can answer nothing for a while, is waited
// for.
func (p *program) watch(cmd *cobra.Command, every time.Duration, look func(ctx context.Context, c *client.Client) (last bool, err error)) error {
	if every < time.Second {
		return fmt.Errorf("flag --every %s: expected 1s or more", every)
	}
	c, err := p.target.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, stop := context.WithCancelCause(cmd.Context())
	defer stop(nil)
	away := false
	now := make(chan struct{}, 1)
	now <- struct{}{}
	jitter.Loop(ctx, every, jitter.DefaultSchedulerJitter, now, func(ctx context.Context) {
		last, err := look(ctx, c)
		switch {
		case passes(err):
			if !away {
				fmt.Fprintf(cmd.ErrOrStderr(), "certctl: %s; waiting for it\n", plain(err.Error()))
			}
			away = true
			return
		case err != nil:
			stop(err)
		case last:
			stop(errWatched)
		}
		away = false
	})
	if err := context.Cause(ctx); !errors.Is(err, errWatched) {
		return err
	}
	return nil
}

// passes reports whether an error may be gone at the next look.
func passes(err error) bool {
	problem, refused := errors.AsType[*wire.Problem](err)
	return errors.Is(err, client.ErrUnreachable) || refused && (problem.Code == wire.CodeUnavailable || problem.Code == wire.CodeOverloaded)
}
