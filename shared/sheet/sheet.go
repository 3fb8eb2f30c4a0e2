// Package sheet writes documents as CSV (RFC 4180) with a header line: one line for each
// item of a list, one column for each field, by the names that the fields have in JSON.
//
// Parts of an item have columns of their own, called part.field. Times are RFC 3339 in
// UTC. A list of texts or numbers stands in one cell, parted by semicolons, and a map as
// key=value; what is nested deeper is JSON. A field that JSON leaves out is an empty cell.
//
// What is in the cells comes from hosts and authorities, and whoever opens the file in a
// spreadsheet must not run it: see [Cell].
package sheet

import (
	"encoding/csv"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode"

	"github.com/certctl/certctl/shared/printable"
)

// Cell makes a text safe for a cell. A spreadsheet takes one that begins with =, +, - or
// @ (also full-width) for a formula, even behind blanks, and an apostrophe before it for
// the word that it is text. A control character, such as a tab or line break, is a space.
func Cell(text string) string {
	text = printable.Text(text)
	switch first := strings.TrimLeftFunc(text, unicode.IsSpace); {
	case first == "":
		return text
	case strings.ContainsRune("=+-@＝＋－＠", []rune(first)[0]):
		return "'" + text
	}
	return text
}

// A Writer writes items of one type.
type Writer struct {
	out     *csv.Writer
	item    reflect.Type
	columns []column
	row     []string
}

// NewWriter makes a writer for items of a type: a struct, or a pointer to one. A type
// of another kind gets a single column, called value.
func NewWriter(out io.Writer, item reflect.Type) *Writer {
	for item.Kind() == reflect.Pointer {
		item = item.Elem()
	}
	w := &Writer{out: csv.NewWriter(out), item: item, columns: columnsOf(item)}
	w.out.UseCRLF = true
	w.row = make([]string, len(w.columns))
	return w
}

// Header writes the names of the columns.
func (w *Writer) Header() error {
	for i, c := range w.columns {
		w.row[i] = Cell(c.name)
	}
	return w.out.Write(w.row)
}

// Row writes one item.
func (w *Writer) Row(item any) error {
	v := reflect.ValueOf(item)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.Type() != w.item {
		return fmt.Errorf("write CSV: a row of %s in a sheet of %s", v.Type(), w.item)
	}
	for i, c := range w.columns {
		cell, err := c.cell(v)
		if err != nil {
			return fmt.Errorf("write CSV: column %s: %w", c.name, err)
		}
		w.row[i] = cell
	}
	return w.out.Write(w.row)
}

// Flush hands on what was written.
func (w *Writer) Flush() error {
	w.out.Flush()
	return w.out.Error()
}

// Rower is a document whose rows in a sheet are not itself: Rows is a slice of them.
type Rower interface{ Rows() any }

// Write writes a document: the items of a slice, of a struct with a field "items", or
// of a [Rower]; of anything else one row.
func Write(out io.Writer, document any, header bool) error {
	rows, item := rowsOf(document)
	w := NewWriter(out, item)
	if header {
		if err := w.Header(); err != nil {
			return err
		}
	}
	for i := range rows.Len() {
		if err := w.Row(rows.Index(i).Interface()); err != nil {
			return err
		}
	}
	return w.Flush()
}

// rowsOf is a slice of what has a row each, and the type of its items.
func rowsOf(document any) (rows reflect.Value, item reflect.Type) {
	if list, ok := document.(Rower); ok {
		document = list.Rows()
	}
	v := reflect.ValueOf(document)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8 {
		return v, v.Type().Elem()
	}
	if v.Kind() == reflect.Struct {
		for _, field := range reflect.VisibleFields(v.Type()) {
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name == "items" && field.Type.Kind() == reflect.Slice {
				return v.FieldByIndex(field.Index), field.Type.Elem()
			}
		}
	}
	one := reflect.MakeSlice(reflect.SliceOf(v.Type()), 0, 1)
	return reflect.Append(one, v), v.Type()
}
