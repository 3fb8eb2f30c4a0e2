package cli

import (
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/certctl/certctl/shared/sheet"
)

// A List writes many items of one kind, page by page as they come: as a table, or as the
// document {"items": [...], "more": false}. If it breaks off, what was written is no
// whole document.
type List[T any] struct {
	Out    io.Writer
	Output Output
	// NoHeaders leaves out the first line of a table or of CSV, and to say of a table
	// that it is empty.
	NoHeaders bool
	// Header and Cells are those of the table.
	Header []string
	Cells  func(item *T) []string

	written int
	table   Table
	rows    *sheet.Writer
}

// Page writes some items.
func (l *List[T]) Page(items []T) error {
	for i := range items {
		if l.written == 0 {
			if err := l.begin(); err != nil {
				return err
			}
		}
		if err := l.item(&items[i]); err != nil {
			return err
		}
		l.written++
	}
	return l.flush()
}

// begin writes what stands before the first item, of which there is one.
func (l *List[T]) begin() error {
	var err error
	switch l.Output {
	case OutputJSON:
		_, err = io.WriteString(l.Out, "{\n  \"items\": [")
	case OutputYAML:
		_, err = io.WriteString(l.Out, yamlItems)
	case OutputCSV:
		err = l.header()
	case OutputTable:
		if !l.NoHeaders {
			l.table.Row(l.Header)
		}
	}
	return err
}

// yamlItems stands above the items in YAML.
const yamlItems = "items:\n"

func (l *List[T]) header() error {
	l.rows = sheet.NewWriter(l.Out, reflect.TypeFor[T]())
	if l.NoHeaders {
		return nil
	}
	return l.rows.Header()
}

func (l *List[T]) item(item *T) error {
	text, between := "", ""
	var err error
	switch l.Output {
	case OutputJSON:
		if text, err = encode(item, "    ", "  "); err != nil {
			return err
		}
		if l.written > 0 {
			between = ","
		}
		text = between + "\n    " + strings.TrimSuffix(text, "\n")
	case OutputYAML:
		if text, err = encodeYAML(map[string]any{"items": []*T{item}}); err != nil {
			return err
		}
		text = strings.TrimPrefix(text, yamlItems)
	case OutputCSV:
		return l.rows.Row(item)
	case OutputTable:
		l.table.Row(l.Cells(item))
		return nil
	}
	_, err = io.WriteString(l.Out, text)
	return err
}

func (l *List[T]) flush() error {
	if l.rows != nil {
		return l.rows.Flush()
	}
	return l.table.Flush(l.Out)
}

// End writes what stands behind the last item. more says that there are others.
func (l *List[T]) End(more bool) error {
	text := ""
	switch l.Output {
	case OutputJSON:
		switch l.written {
		case 0:
			text = "{\n  \"items\": []"
		default:
			text = "\n  ]"
		}
		text += fmt.Sprintf(",\n  \"more\": %t\n}\n", more)
	case OutputYAML:
		if l.written == 0 {
			text = "items: []\n"
		}
		text += fmt.Sprintf("more: %t\n", more)
	case OutputCSV:
		if l.written == 0 {
			if err := l.header(); err != nil {
				return err
			}
		}
		return l.rows.Flush()
	case OutputTable:
		if l.written == 0 && !l.NoHeaders {
			text = "none\n"
		}
	}
	_, err := io.WriteString(l.Out, text)
	return err
}
