package fleet

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/certctl/certctl/shared/wire"
)

// Sizes of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// maxScan bounds the records that one page looks at. A filter that few records
// pass may so give a page that is not full, or empty, and yet has a next one.
const maxScan = 20_000

// ErrCursor says that a cursor does not belong to the list that is asked for.
var ErrCursor = errors.New("the cursor is not one of this list; begin again without a cursor, and keep the filter while paging")

// Page says which part of a list is wanted.
type Page struct {
	Cursor string // Next of the page before; "" begins
	Limit  int    // 0 is DefaultLimit; more than MaxLimit is MaxLimit
	Back   bool   // the list goes from its end to its beginning
}

// AgentFilter narrows a list of agents. What is not set matches all.
type AgentFilter struct {
	Labels       map[string]string // all of them, with these values
	NameContains string            // in the host name or id, whatever its case
	State        AgentState
	// SafeBefore finds agents whose offline horizon ends before this moment, those
	// that are not safe now among them.
	SafeBefore time.Time
	// BySafeUntil lists active agents that serve something, or should, by their
	// offline horizon: those that are not safe now, then the earliest.
	BySafeUntil bool
	// ByHostname lists agents by host name, whatever its case.
	ByHostname bool
}

// CertificateSort is how a list of summaries goes.
type CertificateSort int

// What a list of summaries goes by.
const (
	// SortByFilter is by expiry with ExpiringBefore, unless another part of the filter tells
	// more, and else by agent and name.
	SortByFilter CertificateSort = iota
	SortByID                     // by agent and name
	SortByExpiry                 // those that have one, and no others
)

// CertificateFilter narrows a list of summaries. What is not set matches all.
type CertificateFilter struct {
	Agent        string            // agent id
	Labels       map[string]string // of the agent; all of them, with these values
	Name         string            // a name in the certificate, exactly
	NameContains string            // in the certificate's names or its name in the configuration, whatever its case
	Issuer       string            // the issuer's name in the agent's configuration
	State        wire.State
	Attention    bool // only those for which a person has to act
	// ExpiringBefore finds certificates in service that expire before this
	// moment, soonest first.
	ExpiringBefore time.Time
	Fingerprint    string // lower-case hex
	Serial         string // lower-case hex
	Sort           CertificateSort
}

// Agents lists agents by id, by host name or by their offline horizon. next continues the
// list; it is "" at the end. The error is ErrCursor.
func (v *View) Agents(f AgentFilter, page Page) (list []*Agent, next string, err error) {
	contains := strings.ToLower(f.NameContains)
	plan := scanPlan{table: TableAgents, index: indexID}
	switch {
	case f.BySafeUntil:
		plan.index = indexHorizon
	case f.ByHostname:
		plan.index = indexHostname
	}
	return paginate(v, plan, page, func(a *Agent) verdict {
		if f.BySafeUntil && !f.SafeBefore.IsZero() && !a.safeBefore(f.SafeBefore) {
			return stop // all that follow are safe for longer
		}
		return keep(
			(f.State == "" || a.State == f.State) &&
				hasLabels(a.Labels, f.Labels) &&
				(f.SafeBefore.IsZero() || a.safeBefore(f.SafeBefore)) &&
				(contains == "" || strings.Contains(strings.ToLower(a.Host.Hostname), contains) || strings.Contains(strings.ToLower(a.ID), contains)))
	})
}

// Certificates lists summaries, by agent and name within the filter's most
// telling part, or as its sort says. next continues the list; it is "" at the end. The error is
// ErrCursor.
func (v *View) Certificates(f CertificateFilter, page Page) (list []*Certificate, next string, err error) {
	contains := strings.ToLower(f.NameContains)
	plan := f.plan()
	return paginate(v, plan, page, func(c *Certificate) verdict {
		if plan.index == indexNotAfter && !f.ExpiringBefore.IsZero() && !c.Columns.NotAfter.Before(f.ExpiringBefore) {
			return stop // all that follow expire later
		}
		return keep(f.matches(c, contains) && v.agentHasLabels(c.Agent, f.Labels))
	})
}

// CommandFilter narrows a list of commands for agents. What is not set matches all.
type CommandFilter struct {
	Agent string
	Kind  wire.CommandKind
	Open  bool // only those that may still change
}

// CommandsOfAgents lists the commands for agents by agent and id, finished ones of the
// last weeks too. next continues the list; it is "" at the end. The error is ErrCursor.
func (v *View) CommandsOfAgents(f CommandFilter, page Page) (list []*AgentCommand, next string, err error) {
	plan := scanPlan{table: TableAgentCommands, index: indexID}
	if f.Agent != "" {
		plan.prefix = key(f.Agent)
	}
	return paginate(v, plan, page, func(c *AgentCommand) verdict {
		return keep((f.Kind == "" || c.Kind == f.Kind) && (!f.Open || !c.State.Final()))
	})
}

func (f CertificateFilter) plan() scanPlan {
	by := func(index string, prefix []byte) scanPlan {
		return scanPlan{table: TableCertificates, index: index, prefix: prefix}
	}
	byExpiry := by(indexNotAfter, nil)
	if !f.ExpiringBefore.IsZero() {
		byExpiry.below = key(f.ExpiringBefore)
	}
	switch {
	case f.Sort == SortByExpiry:
		return byExpiry
	case f.Fingerprint != "":
		return by(indexFingerprint, key(f.Fingerprint))
	case f.Serial != "":
		return by(indexSerial, key(f.Serial))
	case f.Name != "":
		return by(indexName, key(f.Name))
	case !f.ExpiringBefore.IsZero() && f.Sort != SortByID:
		return byExpiry
	case f.Agent != "":
		return by(indexID, key(f.Agent))
	case f.Attention:
		return by(indexAttention, nil)
	case f.State != "":
		return by(indexState, key(string(f.State)))
	case f.Issuer != "":
		return by(indexIssuer, key(f.Issuer))
	default:
		return by(indexID, nil)
	}
}

func (f CertificateFilter) matches(c *Certificate, contains string) bool {
	col := &c.Columns
	switch {
	case f.Agent != "" && c.Agent != f.Agent,
		f.Issuer != "" && col.Issuer != f.Issuer,
		f.State != "" && col.State != f.State,
		f.Attention && !col.Attention,
		f.Fingerprint != "" && col.Fingerprint != f.Fingerprint,
		f.Serial != "" && col.Serial != f.Serial,
		!f.ExpiringBefore.IsZero() && (col.NotAfter.IsZero() || !col.NotAfter.Before(f.ExpiringBefore)):
		return false
	}
	if f.Name != "" && !containsName(col.Names, func(n string) bool { return n == f.Name }) {
		return false
	}
	return contains == "" || strings.Contains(strings.ToLower(c.Name), contains) ||
		containsName(col.Names, func(n string) bool { return strings.Contains(n, contains) })
}

func containsName(names []string, match func(string) bool) bool {
	for _, name := range names {
		if match(name) {
			return true
		}
	}
	return false
}

func (v *View) agentHasLabels(id string, labels map[string]string) bool {
	if len(labels) == 0 {
		return true
	}
	agent, ok := v.Agent(id)
	return ok && hasLabels(agent.Labels, labels)
}

func hasLabels(have, want map[string]string) bool {
	for label, value := range want {
		if got, ok := have[label]; !ok || got != value {
			return false
		}
	}
	return true
}

// A scanPlan is the index that a list goes along, and the prefix it stays in.
type scanPlan struct {
	table  Table
	index  string
	prefix []byte
	below  []byte // there is nothing to be found at or above this key; nil if there may be
	back   bool
}

type verdict int

const (
	skip verdict = iota
	take
	stop
)

func keep(matches bool) verdict {
	if matches {
		return take
	}
	return skip
}

// paginate goes along an index from the cursor on. A cursor is the key after
// which the next page begins, so that pages neither repeat nor miss a record
// that stays, whatever comes and goes between them.
func paginate[T any](v *View, plan scanPlan, page Page, match func(*T) verdict) (list []*T, next string, err error) {
	limit := page.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	limit = min(limit, MaxLimit)
	plan.back = page.Back
	after, err := plan.readCursor(page.Cursor)
	if err != nil {
		return nil, "", err
	}
	records := plan.scan(v, after)
	var last []byte
	for scanned := 0; ; scanned++ {
		record, ok := records.Next().(*T)
		if !ok {
			return list, "", nil
		}
		k := plan.keyOf(record)
		if k == nil {
			return list, "", nil // beyond the prefix
		}
		if len(list) == limit || scanned == maxScan {
			return list, plan.cursor(last), nil
		}
		last = k
		switch match(record) {
		case take:
			list = append(list, record)
		case stop:
			if !plan.back {
				return list, "", nil
			}
		}
	}
}

// scan goes along the plan from a key on, which is left out; nil begins.
func (p scanPlan) scan(v *View, after []byte) records {
	if p.back {
		below := after
		if below == nil {
			below = p.below
		}
		if below == nil {
			below = beyond(p.prefix)
		}
		return v.scanBack(p.table, p.index, below)
	}
	from := p.prefix
	if after != nil {
		from = append(bytes.Clone(after), 0) // the next possible key
	}
	return v.scanFrom(p.table, p.index, from)
}

// beyond is the first key after all that begin with prefix; nil if there is none.
func beyond(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			next := bytes.Clone(prefix[:i+1])
			next[i]++
			return next
		}
	}
	return nil
}

// keyOf is the record's key in the plan's index, nil if it is beyond the
// prefix. An index by name has several; the one that the scan has come to is
// the one with the prefix.
func (p scanPlan) keyOf(record any) []byte {
	for _, x := range indexesOf(p.table) {
		if x.name != p.index {
			continue
		}
		for _, k := range x.keys(record) {
			if bytes.HasPrefix(k, p.prefix) {
				return k
			}
		}
	}
	return nil
}

func indexesOf(table Table) []index {
	for _, s := range schemas {
		if s.table == table {
			return s.indexes
		}
	}
	return nil
}

// way is the plan's index, and whether it goes back along it.
func (p scanPlan) way() string {
	if p.back {
		return "-" + p.index
	}
	return p.index
}

// cursor packs the plan's way and a key. Both are checked when it comes back.
func (p scanPlan) cursor(after []byte) string {
	return base64.RawURLEncoding.EncodeToString(append([]byte(p.way()+"\x00"), after...))
}

func (p scanPlan) readCursor(cursor string) ([]byte, error) {
	if cursor == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil {
		return nil, ErrCursor
	}
	way, after, ok := bytes.Cut(raw, []byte{0})
	if !ok || string(way) != p.way() || !bytes.HasPrefix(after, p.prefix) {
		return nil, ErrCursor
	}
	return after, nil
}
