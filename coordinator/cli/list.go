package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

// A source hands on the items of a list, page by page and limit together; 0 is all. more
// reports whether there are others.
type source[T any] func(ctx context.Context, c *client.Client, limit int, use func(page []T) error) (more bool, err error)

// pagesOf is a list of the API that comes in pages.
func pagesOf[T any](list client.Lister[T]) source[T] {
	return func(ctx context.Context, c *client.Client, limit int, use func([]T) error) (bool, error) {
		return client.Pages(ctx, c, list, limit, use)
	}
}

// onePageOf is a list that the API has on one page.
func onePageOf[T any](ask func(context.Context, *client.Client) (*resource.Page[T], error)) source[T] {
	return func(ctx context.Context, c *client.Client, _ int, use func([]T) error) (bool, error) {
		items, err := itemsOf(ask(ctx, c))
		if err != nil {
			return false, err
		}
		return false, use(items)
	}
}

// itemsOf is what is on a page.
func itemsOf[T any](page *resource.Page[T], err error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	return page.Items, nil
}

// A listing is how a command shows many of one kind.
type listing[T any] struct {
	// header and cells are those of a table. after writes what stands below it; nil is
	// nothing.
	header []string
	cells  func(item *T, now time.Time) []string
	after  func(out io.Writer, items []T, now time.Time) error
	// id tells the items of a list apart that can be watched, and gone is said of one
	// that is not in it any more.
	id   func(item *T) string
	gone string
}

// listFlags are those of lists.
type listFlags struct {
	limit     int
	all       bool
	whole     bool // it has no pages, and neither of the flags above
	noHeaders bool
	watch     watching
}

const defaultLimit = 200

// bind adds the flags of a list that comes in pages.
func (l *listFlags) bind(cmd *cobra.Command) {
	cmd.Flags().IntVar(&l.limit, "limit", defaultLimit, "show at most this many")
	cmd.Flags().BoolVar(&l.all, "all", false, "show all, page after page")
	cmd.MarkFlagsMutuallyExclusive("limit", "all")
	l.bindHeaders(cmd)
}

// bindWhole adds the flags of a list that comes as a whole.
func (l *listFlags) bindWhole(cmd *cobra.Command) {
	l.whole = true
	l.bindHeaders(cmd)
}

func (l *listFlags) bindHeaders(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&l.noHeaders, "no-headers", false, "leave out the first line of a table or of CSV, which names the columns")
}

// most is how many items are wanted; 0 is all.
func (l *listFlags) most() (int, error) {
	switch {
	case l.all, l.whole:
		return 0, nil
	case l.limit < 1:
		return 0, fmt.Errorf("flag --limit %d: expected 1 or more, or --all", l.limit)
	}
	return l.limit, nil
}

// listOf is what a list prints as JSON.
type listOf[T any] struct {
	Items []T  `json:"items"`
	More  bool `json:"more"` // there are others, beyond the limit
}

// printList writes a list as it comes, and says when there is more.
func printList[T any](p *program, cmd *cobra.Command, flags *listFlags, from source[T], as listing[T]) error {
	if flags.watch.on {
		return watchList(p, cmd, flags, from, &as)
	}
	limit, err := flags.most()
	if err != nil {
		return err
	}
	c, err := p.target.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	now := time.Now()
	list := sharedcli.List[T]{
		Out: cmd.OutOrStdout(), Output: p.output, NoHeaders: flags.noHeaders,
		Header: as.header, Cells: func(item *T) []string { return as.cells(item, now) },
	}
	var items []T // for what stands below them
	shown := 0
	more, err := from(cmd.Context(), c, limit, func(page []T) error {
		shown += len(page)
		if as.after != nil && p.output.Human() {
			items = append(items, page...)
		}
		return list.Page(page)
	})
	if err != nil {
		return err
	}
	if err := list.End(more); err != nil {
		return err
	}
	if more {
		fmt.Fprintf(cmd.ErrOrStderr(), "certctl: these are the first %d; --all shows the rest\n", shown)
	}
	if as.after != nil && p.output.Human() {
		return as.after(cmd.OutOrStdout(), items, now)
	}
	return nil
}
