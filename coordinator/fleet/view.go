package fleet

import (
	"time"

	"github.com/certctl/certctl/coordinator/fleet/tables"
)

// View is the state at one moment. It stays as it is while the state goes on,
// is safe for concurrent use, and needs no closing. What it returns is shared
// and must not be changed.
type View struct {
	txn   *tables.Txn
	reads *[]Table // that were read, if somebody wants to know; see Watched
	scope Scope    // that it is limited to; see Within
}

// View is the state as it is now.
func (s *State) View() *View { return &View{txn: s.db.Load().Read()} }

// get is the first record whose key in an index begins with prefix.
func get[T any](v *View, table Table, index string, prefix []byte) (*T, bool) {
	v.note(table)
	if !v.scope.IsZero() {
		record, ok := v.scan(table, index, prefix).Next().(*T)
		return record, ok
	}
	record, ok := v.txn.FirstPrefix(string(table), index, prefix).(*T)
	return record, ok
}

func (v *View) scan(table Table, index string, prefix []byte) records {
	v.note(table)
	return records{v.txn.Scan(string(table), index, prefix), v}
}

func (v *View) scanFrom(table Table, index string, from []byte) records {
	v.note(table)
	return records{v.txn.ScanFrom(string(table), index, from), v}
}

// scanBack goes through what scan does from the last record below a key back; nil is
// from the end.
func (v *View) scanBack(table Table, index string, below []byte) records {
	v.note(table)
	return records{v.txn.ScanBack(string(table), index, below), v}
}

func collect[T any](records records) []*T {
	var list []*T
	for record := records.Next(); record != nil; record = records.Next() {
		list = append(list, record.(*T)) // a table holds one type
	}
	return list
}

// Index is the log index that the view shows.
func (v *View) Index() uint64 {
	p, ok := get[position](v, tablePosition, indexID, nil)
	if !ok {
		return 0
	}
	return p.Index
}

// RestoredAt is when the state was last replaced by that of a backup, zero if it never
// was.
func (v *View) RestoredAt() time.Time {
	p, ok := get[position](v, tablePosition, indexID, nil)
	if !ok {
		return time.Time{}
	}
	return p.RestoredAt
}

// Version is the log index of the last change in any of the tables. It is equal
// on all nodes, and so makes an entity tag of what was read from them.
func (v *View) Version(tables ...Table) uint64 {
	var version uint64
	for _, table := range tables {
		version = max(version, v.info(table).Version)
	}
	return version
}

// Rows counts the records of a table: at no cost, unless the view is limited to a
// scope.
func (v *View) Rows(table Table) int {
	v.note(table)
	if v.scope.IsZero() {
		return v.info(table).Rows
	}
	rows := 0
	for records := v.scan(table, indexID, nil); records.Next() != nil; {
		rows++
	}
	return rows
}

func (v *View) info(table Table) tableInfo {
	info, ok := get[tableInfo](v, tableInfos, indexID, key(string(table)))
	if !ok {
		return tableInfo{Table: table}
	}
	return *info
}

// CA is the built-in certificate authority, if there is one.
func (v *View) CA() (*CA, bool) { return get[CA](v, TableCA, indexID, nil) }

// Agent looks an agent up by its id, retired ones too.
func (v *View) Agent(id string) (*Agent, bool) {
	return get[Agent](v, TableAgents, indexID, key(id))
}

// AgentByIdentity looks up the agent whose identity certificate, current or
// pending, has this fingerprint (SHA-256, lower-case hex), retired ones too.
// pending says that the certificate is used for the first time and is to be
// promoted.
func (v *View) AgentByIdentity(fingerprint string) (agent *Agent, pending, ok bool) {
	if fingerprint == "" {
		return nil, false, false
	}
	agent, ok = get[Agent](v, TableAgents, indexIdentity, key(fingerprint))
	if !ok {
		return nil, false, false
	}
	return agent, agent.Current.Fingerprint != fingerprint, true
}

// AgentByPublicKey looks up the agent that enrolled with a key (SHA-256 of its
// SubjectPublicKeyInfo, lower-case hex), retired ones too.
func (v *View) AgentByPublicKey(fingerprint string) (*Agent, bool) {
	if fingerprint == "" {
		return nil, false
	}
	return get[Agent](v, TableAgents, indexPublicKey, key(fingerprint))
}

// LastSeen is when an agent was last heard of, as far as it is replicated: the
// leader knows more. Zero if it never was.
func (v *View) LastSeen(agent string) time.Time {
	p, ok := get[presence](v, TablePresence, indexID, key(agent))
	if !ok {
		return time.Time{}
	}
	return p.At
}

// Certificate looks a summary up by its agent and name.
func (v *View) Certificate(agent, name string) (*Certificate, bool) {
	return get[Certificate](v, TableCertificates, indexID, key(agent, name))
}

// CertificatesOf lists the summaries of an agent by name.
func (v *View) CertificatesOf(agent string) []*Certificate {
	return collect[Certificate](v.scan(TableCertificates, indexID, key(agent)))
}

// Order looks an order up, collected ones of the last day too.
func (v *View) Order(agent, id string) (*Order, bool) {
	return get[Order](v, TableOrders, indexID, key(agent, id))
}

// OrdersOf lists the orders of an agent that it has not collected, by id.
func (v *View) OrdersOf(agent string) []*Order {
	var list []*Order
	for _, order := range collect[Order](v.scan(TableOrders, indexID, key(agent))) {
		if order.State != OrderCollected {
			list = append(list, order)
		}
	}
	return list
}

// OrdersIn lists the orders in a state, oldest first, up to limit (0 is all).
func (v *View) OrdersIn(state OrderState, limit int) []*Order {
	records := v.scan(TableOrders, indexState, key(string(state)))
	var list []*Order
	for limit <= 0 || len(list) < limit {
		order, ok := records.Next().(*Order)
		if !ok {
			break
		}
		list = append(list, order)
	}
	return list
}

// EnrollmentToken looks an enrolment token up by its id.
func (v *View) EnrollmentToken(id string) (*EnrollmentToken, bool) {
	return get[EnrollmentToken](v, TableEnrollmentTokens, indexID, key(id))
}

// EnrollmentTokens lists all enrolment tokens, by id.
func (v *View) EnrollmentTokens() []*EnrollmentToken {
	return collect[EnrollmentToken](v.scan(TableEnrollmentTokens, indexID, nil))
}

// APIToken looks an API token up by its id.
func (v *View) APIToken(id string) (*APIToken, bool) {
	return get[APIToken](v, TableAPITokens, indexID, key(id))
}

// APITokenByHash looks up the token whose secret has this SHA-256. It is the
// caller who refuses expired and revoked ones; see [APIToken.Usable].
func (v *View) APITokenByHash(hash [32]byte) (*APIToken, bool) {
	return get[APIToken](v, TableAPITokens, indexHash, key(hash[:]))
}

// APITokens lists all API tokens, by id.
func (v *View) APITokens() []*APIToken {
	return collect[APIToken](v.scan(TableAPITokens, indexID, nil))
}

// Usable reports whether the token is neither revoked nor expired.
func (t *APIToken) Usable(now time.Time) bool {
	return t.RevokedAt.IsZero() && (t.ExpiresAt.IsZero() || now.Before(t.ExpiresAt))
}
