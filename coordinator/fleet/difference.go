package fleet

import (
	"bytes"
	"fmt"
)

// Differences goes through the records of a table that are not the same in two views,
// in the order of their ids. before or after is nil where one view has no such record.
// Both are of the table's type, such as *Agent, and must not be changed.
func Differences(from, to *View, table Table, visit func(before, after any)) error {
	id := idOf(table)
	if id == nil {
		return fmt.Errorf("fleet: there is no table %q", table)
	}
	left, right := from.scan(table, indexID, nil), to.scan(table, indexID, nil)
	before, after := left.Next(), right.Next()
	for before != nil || after != nil {
		var order int
		switch {
		case before == nil:
			order = 1
		case after == nil:
			order = -1
		default:
			order = bytes.Compare(id(before), id(after))
		}
		switch {
		case order < 0:
			visit(before, nil)
			before = left.Next()
		case order > 0:
			visit(nil, after)
			after = right.Next()
		default:
			// As they are stored: a moment may be written in two ways in memory.
			was, err := encoder.Marshal(before)
			if err != nil {
				return fmt.Errorf("fleet: a record of the table %q: %w", table, err)
			}
			is, err := encoder.Marshal(after)
			if err != nil {
				return fmt.Errorf("fleet: a record of the table %q: %w", table, err)
			}
			if !bytes.Equal(was, is) {
				visit(before, after)
			}
			before, after = left.Next(), right.Next()
		}
	}
	return nil
}

// idOf is the key by which a table's records are told apart; nil if there is no such
// table.
func idOf(table Table) func(record any) []byte {
	for _, s := range schemas {
		if s.table != table {
			continue
		}
		for _, x := range s.indexes {
			if x.name == indexID {
				return func(record any) []byte { return x.keys(record)[0] }
			}
		}
	}
	return nil
}
