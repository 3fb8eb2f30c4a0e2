package fleet

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/certctl/certctl/coordinator/fleet/tables"
)

// A change is one log entry being applied: a write transaction, the facts made
// so far, and the first error, after which nothing more is done. Handlers see
// the state and the command through it and nothing else.
type change struct {
	txn     *tables.Txn
	index   uint64
	at      time.Time // of the last command
	command ID

	position position
	infos    map[Table]*tableInfo // loaded on first use, stored by finish
	facts    []Fact
	sealed   int // how many of facts are in the chain, if there is one
	err      error

	rememberMax int
	forgotten   uint64 // index of the newest command that was forgotten
}

func (c *change) fail(err error) {
	if err != nil {
		c.stop(fmt.Errorf("%w: %w", ErrInternal, err))
	}
}

// stop ends the applying with one of the errors of log entries.
func (c *change) stop(err error) {
	if c.err == nil {
		c.err = err
	}
}

// scan lists the records whose key in the index begins with prefix. The list is
// that of the moment: what the caller changes while it goes through does not
// show. A nil prefix is all.
func (c *change) scan(table Table, index string, prefix []byte) *tables.Iterator {
	return c.txn.Scan(string(table), index, prefix)
}

// find is the record with a key; nil if there is none.
func find[T any](c *change, table Table, index string, k []byte) *T {
	record, _ := c.txn.First(string(table), index, k).(*T)
	return record
}

// findPrefix is the first record whose key begins with prefix; nil if there is none.
func findPrefix[T any](c *change, table Table, index string, prefix []byte) *T {
	record, _ := c.txn.FirstPrefix(string(table), index, prefix).(*T)
	return record
}

// edit is a copy of a record for the handler to change and insert. Slices and
// maps stay shared: a handler replaces them and never writes into them.
func edit[T any](record *T) *T {
	copied := *record
	return &copied
}

func (c *change) info(table Table) *tableInfo {
	if info := c.infos[table]; info != nil {
		return info
	}
	info := &tableInfo{Table: table}
	if stored := find[tableInfo](c, tableInfos, indexID, key(string(table))); stored != nil {
		info = edit(stored)
	}
	c.infos[table] = info
	return info
}

// insert stores a record that is not there yet.
func (c *change) insert(table Table, record any) {
	c.put(table, record)
	c.info(table).Rows++
}

// put replaces the record of the same id.
func (c *change) put(table Table, record any) {
	c.fail(c.txn.Insert(string(table), record))
	c.info(table).Version = c.index
}

func (c *change) delete(table Table, record any) {
	c.fail(c.txn.Delete(string(table), record))
	info := c.info(table)
	info.Version = c.index
	info.Rows--
}

// event adds a routine fact.
func (c *change) event(f Fact, detail any) {
	f.Index, f.Ordinal, f.Time = c.index, uint32(len(c.facts)), c.at // bounded by the entry's size
	if detail != nil {
		data, err := json.Marshal(detail)
		c.fail(err)
		f.Detail = data
	}
	c.facts = append(c.facts, f)
}

// audit adds a fact of the audit trail. The caller gives it what it changed, if it
// changes an object, while its command is being applied.
func (c *change) audit(f Fact, detail any) *act {
	c.position.Audit++
	f.Audit = c.position.Audit
	c.event(f, detail)
	return &act{change: c, at: len(c.facts) - 1}
}

// finish stores the bookkeeping. The tables go in a fixed order, as everything
// that changes the state does.
func (c *change) finish() { c.flush(c.index) }

// flush stores the bookkeeping as of an index.
func (c *change) flush(index uint64) {
	for _, s := range schemas {
		if info := c.infos[s.table]; info != nil {
			c.fail(c.txn.Insert(string(tableInfos), info))
		}
	}
	c.position.Index = index
	stored := c.position // which is not changed any more
	c.fail(c.txn.Insert(string(tablePosition), &stored))
}

// success is the result of a command with an outcome.
func (c *change) success(outcome any) Result {
	data, err := encoder.Marshal(outcome)
	c.fail(err)
	return Result{Data: data}
}
