package cli

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/client"
)

// A watched list is one whose lines are written as they change.
type watchedList[T any] struct {
	list client.Lister[T]
	// id tells the items apart.
	id func(*T) string
	// cells are what is written of an item.
	cells func(item *T, now time.Time) []string
	// gone is what is said of an item that is not in the list any more.
	gone string
}

// watchList writes what is in a list, then a line for each item that comes, changes or
// goes, until the list is empty. As JSON it writes the list whenever it has changed.
func watchList[T any](p *program, cmd *cobra.Command, flags *listFlags, every time.Duration, w watchedList[T]) error {
	limit, err := flags.most()
	if err != nil {
		return err
	}
	last := map[string]T{}
	begun := false
	return p.watch(cmd, every, func(ctx context.Context, c *client.Client) (bool, error) {
		items, more, err := client.Collect(ctx, c, w.list, limit)
		if err != nil {
			return false, err
		}
		now := map[string]T{}
		var lines [][]string
		at := time.Now()
		stamp := at.Local().Format(time.TimeOnly)
		for i := range items {
			id := w.id(&items[i])
			now[id] = items[i]
			if before, known := last[id]; !known || !reflect.DeepEqual(before, items[i]) {
				lines = append(lines, append([]string{stamp}, w.cells(&items[i], at)...))
			}
		}
		// Whether what is beyond the limit has gone is not known.
		for id, before := range last {
			if _, there := now[id]; !there && !more {
				lines = append(lines, append([]string{stamp}, append(w.cells(&before, at), w.gone)...))
			}
		}
		over := len(items) == 0 && !more
		changed := len(lines) > 0 || !begun
		last, begun = now, true
		if !changed {
			return over, nil
		}
		if items == nil {
			items = []T{}
		}
		return over, p.show(cmd, listOf[T]{Items: items, More: more}, func(out io.Writer, _ time.Time) error {
			for _, cells := range lines {
				for i := range cells {
					cells[i] = dash(cells[i])
				}
				if _, err := fmt.Fprintln(out, strings.Join(cells, "  ")); err != nil {
					return err
				}
			}
			if over {
				_, err := fmt.Fprintf(out, "%s  none\n", stamp)
				return err
			}
			return nil
		})
	})
}
