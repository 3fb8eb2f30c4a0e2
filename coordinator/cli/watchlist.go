package cli

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

// change is what a watched list writes for a program of one of its items.
type change[T any] struct {
	Time   time.Time  `json:"time"`
	Change changeKind `json:"change"`
	Item   T          `json:"item"` // as it was last if it is gone
}

type changeKind string

const (
	changeListed  changeKind = "listed" // it was there when the watch began
	changeAdded   changeKind = "added"
	changeChanged changeKind = "changed"
	changeGone    changeKind = "gone" // from the list
)

// listWatch is what a watched list has shown.
type listWatch[T any] struct {
	p      *program
	as     *listing[T]
	flags  *listFlags
	screen *screen
	begun  bool
	wrote  bool // a change, below whose header others stand
	// last are the items by what tells them apart, in the order of keys.
	last map[string]T
	keys []string
}

// watchList shows what is in a list, and goes on showing it: on a terminal the whole list
// in place; elsewhere a line, or a document, for each item that comes, changes or goes.
func watchList[T any](p *program, cmd *cobra.Command, flags *listFlags, from source[T], as *listing[T]) error {
	limit, err := flags.most()
	if err != nil {
		return err
	}
	w := &listWatch[T]{p: p, as: as, flags: flags, screen: p.newScreen(cmd, flags.watch.every)}
	return p.watch(cmd, &flags.watch, w.screen.away, func(ctx context.Context, c *client.Client) (bool, error) {
		var items []T
		more, err := from(ctx, c, limit, func(page []T) error {
			items = append(items, page...)
			return nil
		})
		if err != nil {
			return false, err
		}
		over := flags.watch.until != "" && len(items) == 0 && !more
		now := time.Now()
		if w.screen.terminal() {
			return over, w.draw(items, more, now)
		}
		return over, w.changes(items, more, over, now)
	})
}

// draw shows all of it.
func (w *listWatch[T]) draw(items []T, more bool, now time.Time) error {
	var text bytes.Buffer
	list := sharedcli.List[T]{
		Out: &text, Output: sharedcli.OutputTable, NoHeaders: w.flags.noHeaders,
		Header: w.as.header, Cells: func(item *T) []string { return w.as.cells(item, now) },
	}
	if err := list.Page(items); err != nil {
		return err
	}
	if err := list.End(more); err != nil {
		return err
	}
	if more {
		fmt.Fprintf(&text, "these are the first %d; --all shows the rest\n", len(items))
	}
	if w.as.after != nil {
		if err := w.as.after(&text, items, now); err != nil {
			return err
		}
	}
	return w.screen.draw(text.String(), now)
}

// changes writes what has changed since the last look.
func (w *listWatch[T]) changes(items []T, more, over bool, now time.Time) error {
	seen := make(map[string]T, len(items))
	keys := make([]string, 0, len(items))
	for i := range items {
		key := w.as.id(&items[i])
		if _, twice := seen[key]; !twice { // it moved from one page to the next meanwhile
			keys = append(keys, key)
		}
		seen[key] = items[i]
		before, known := w.last[key]
		kind := changeChanged
		switch {
		case !w.begun:
			kind = changeListed
		case !known:
			kind = changeAdded
		case reflect.DeepEqual(before, items[i]):
			continue
		}
		if err := w.write(kind, &items[i], now); err != nil {
			return err
		}
	}
	// Whether what is beyond the limit has gone is not known.
	for _, key := range w.keys {
		before := w.last[key]
		if _, there := seen[key]; !there && !more {
			if err := w.write(changeGone, &before, now); err != nil {
				return err
			}
		}
	}
	if over && w.p.output.Human() {
		if _, err := fmt.Fprintf(w.screen.out, "%s  none\n", now.Local().Format(time.TimeOnly)); err != nil {
			return err
		}
	}
	w.begun, w.last, w.keys = true, seen, keys
	return nil
}

func (w *listWatch[T]) write(kind changeKind, item *T, now time.Time) error {
	if !w.p.output.Human() {
		again := w.wrote || w.flags.noHeaders
		w.wrote = true
		return writeChange(w.screen.out, w.p.output, change[T]{Time: now.UTC(), Change: kind, Item: *item}, again)
	}
	cells := append([]string{now.Local().Format(time.TimeOnly)}, w.as.cells(item, now)...)
	if kind == changeGone {
		cells = append(cells, first(w.as.gone, "not listed any more"))
	}
	for i := range cells {
		cells[i] = dash(cells[i])
	}
	_, err := fmt.Fprintln(w.screen.out, strings.Join(cells, "  "))
	return err
}
