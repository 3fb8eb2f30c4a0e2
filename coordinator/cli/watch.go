package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/sheet"
	"github.com/certctl/certctl/shared/wire"
)

const (
	defaultWatchInterval  = 2 * time.Second
	shortestWatchInterval = time.Second
)

// watching is the flags of what can be watched.
type watching struct {
	on    bool
	every time.Duration
	until string // what it waits for; "" is nothing
}

// bind adds the flags. until is what ends the watch by itself; "" is nothing.
func (w *watching) bind(cmd *cobra.Command, until string) {
	w.until = until
	flags := cmd.Flags()
	flags.BoolVar(&w.on, "watch", false, "go on until "+first(until, "it is interrupted")+", and show what changes")
	flags.DurationVar(&w.every, "interval", defaultWatchInterval, "how often --watch looks, such as 10s or 1m; 1s or more")
	flags.DurationVar(&w.every, "every", defaultWatchInterval, "how often --watch looks")
	_ = flags.MarkHidden("every") // the earlier name of interval
	for _, name := range []string{"interval", "every"} {
		_ = cmd.RegisterFlagCompletionFunc(name, completeWords("1s", "2s", "5s", "10s", "30s", "1m"))
	}
}

// or is a command that watches where that is asked for, and else does its other work.
func (w *watching) or(watch, once func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if w.on {
			return watch(cmd, args)
		}
		return once(cmd, args)
	}
}

// errWatched ends a watch that has come to its end.
var errWatched = errors.New("watched to the end")

// look is one look of a watch. The last one ends it.
type look func(ctx context.Context, c *client.Client) (last bool, err error)

// watch looks at once and then again and again, until a look is the last one or fails. A
// coordinator that is away, or can answer nothing for a while, is waited for. away is
// told of it, and with "" when it is back. Whoever waits for nothing may interrupt it:
// that is no failure.
func (p *program) watch(cmd *cobra.Command, w *watching, away func(why string), next look) error {
	if w.every < p.shortest {
		return fmt.Errorf("flag --interval %s: expected %s or more", w.every, p.shortest)
	}
	c, err := p.target.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	c.Revalidate()
	ctx, stop := context.WithCancelCause(cmd.Context())
	defer stop(nil)
	gone := false
	now := make(chan struct{}, 1)
	now <- struct{}{}
	jitter.Loop(ctx, w.every, jitter.DefaultSchedulerJitter, now, func(ctx context.Context) {
		last, err := next(ctx, c)
		switch {
		case passes(err):
			if !gone {
				away(plain(err.Error()) + "; waiting for it")
			}
			gone = true
			return
		case err != nil:
			stop(err)
			return
		case last:
			stop(errWatched)
		}
		if gone {
			away("")
		}
		gone = false
	})
	switch err := context.Cause(ctx); {
	case errors.Is(err, errWatched):
		return nil
	case errors.Is(err, context.Canceled) && w.until == "":
		return nil
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted before %s", w.until)
	default:
		return err
	}
}

// passes reports whether an error may be gone at the next look.
func passes(err error) bool {
	problem, refused := errors.AsType[*wire.Problem](err)
	return errors.Is(err, client.ErrUnreachable) || refused && slices.Contains([]wire.Code{wire.CodeUnavailable, wire.CodeOverloaded, wire.CodeRateLimited}, problem.Code)
}

// A watched document is one that is shown again when it has changed.
type watched[T any] struct {
	read func(ctx context.Context, c *client.Client) (*T, error)
	// human writes it for a person.
	human func(out io.Writer, v *T, now time.Time) error
	// line is what is written of a change where there is no terminal to show it all
	// again; nil has it all written again.
	line func(v *T) string
	// standing is what of it counts as a change; nil is all of it.
	standing func(v *T) any
	// over says that there is nothing left to wait for; nil is never.
	over func(v *T) bool
}

// watchOne shows a document, and again whenever it has changed.
func watchOne[T any](p *program, cmd *cobra.Command, flags *watching, w watched[T]) error {
	s := p.newScreen(cmd, flags.every)
	var last any
	begun := false
	return p.watch(cmd, flags, s.away, func(ctx context.Context, c *client.Client) (bool, error) {
		v, err := w.read(ctx, c)
		if err != nil {
			return false, err
		}
		over := w.over != nil && w.over(v)
		now := time.Now()
		if s.terminal() {
			var text bytes.Buffer
			if err := w.human(&text, v, now); err != nil {
				return over, err
			}
			return over, s.draw(text.String(), now)
		}
		standing := any(v)
		if w.standing != nil {
			standing = w.standing(v)
		}
		if begun && reflect.DeepEqual(standing, last) {
			return over, nil
		}
		defer func() { begun, last = true, standing }()
		return over, w.write(s, p.output, v, begun, now)
	})
}

// write writes a change.
func (w *watched[T]) write(s *screen, output sharedcli.Output, v *T, again bool, now time.Time) error {
	switch {
	case !output.Human():
		return writeChange(s.out, output, v, again)
	case w.line != nil:
		_, err := fmt.Fprintf(s.out, "%s  %s\n", now.Local().Format(time.TimeOnly), plain(w.line(v)))
		return err
	case again:
		if _, err := fmt.Fprintf(s.out, "\n%s\n", now.Local().Format(time.TimeOnly)); err != nil {
			return err
		}
	}
	return w.human(s.out, v, now)
}

// writeChange writes a document of a watch for a program: a line of JSON, a document of
// a stream of YAML, or lines of CSV under one header.
func writeChange(out io.Writer, output sharedcli.Output, v any, again bool) error {
	switch output {
	case sharedcli.OutputJSON:
		return sharedcli.WriteJSONLine(out, v)
	case sharedcli.OutputYAML:
		if _, err := io.WriteString(out, "---\n"); err != nil {
			return err
		}
		return sharedcli.WriteYAML(out, v)
	case sharedcli.OutputCSV:
		return sheet.Write(out, v, !again)
	case sharedcli.OutputTable:
	}
	return nil
}
