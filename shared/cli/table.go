package cli

import (
	"io"
	"strings"
	"unicode/utf8"

	"github.com/certctl/certctl/shared/printable"
)

// A Table aligns rows of cells for a person. It can be written in parts: a column is as
// wide as its widest cell so far.
type Table struct {
	rows   [][]string
	widths []int
}

// Row adds a row. What is empty is a dash, and nothing in a cell paints on the terminal.
func (t *Table) Row(cells []string) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		if row[i] = printable.Text(cell); cell == "" {
			row[i] = "-"
		}
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(row[i]))
	}
	t.rows = append(t.rows, row)
}

// Flush writes the rows since the last time.
func (t *Table) Flush(out io.Writer) error {
	var text strings.Builder
	for _, row := range t.rows {
		for i, cell := range row {
			text.WriteString(cell)
			if i < len(row)-1 {
				text.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		text.WriteByte('\n')
	}
	t.rows = nil
	_, err := io.WriteString(out, text.String())
	return err
}
