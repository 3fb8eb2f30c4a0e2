package fleet

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/fleet/tables"
)

// Table names one table of the state.
type Table string

// Tables. The version of each is the log index of its last change.
const (
	TableAgents           Table = "agents"
	TableCertificates     Table = "certificates"
	TableOrders           Table = "orders"
	TableEnrollmentTokens Table = "enrollment_tokens"
	TableAPITokens        Table = "api_tokens"
	TableCA               Table = "ca"
	TablePresence         Table = "presence"
	// Assignments, commands and revocations.
	TableAssignments       Table = "assignments"
	TableAssignmentReports Table = "assignment_reports"
	TableAgentCommands     Table = "agent_commands"
	TableCampaigns         Table = "campaigns"
	TableIssued            Table = "issued"
	TableRevocations       Table = "revocations"
	TableRevocationList    Table = "revocation_list"
	// What is kept of days.
	TableDays Table = "days"
	// The cluster's own.
	TableClusterCA  Table = "cluster_ca"
	TableNodes      Table = "nodes"
	TableJoinTokens Table = "join_tokens"
	tableStaged     Table = "staged_restore"
	tableSeen       Table = "seen_commands"
	tableInfos      Table = "tables"
	tablePosition   Table = "position"
)

const (
	indexID          = "id"
	indexIdentity    = "identity"   // agents by fingerprint of an identity
	indexPublicKey   = "public_key" // agents by the key that they enrolled with
	indexState       = "state"
	indexIssuer      = "issuer"
	indexNotAfter    = "not_after"
	indexHostname    = "hostname"  // agents by host name in lower case
	indexHorizon     = "horizon"   // active agents by their offline horizon
	indexAttention   = "attention" // certificates for which a person has to act
	indexFingerprint = "fingerprint"
	indexSerial      = "serial"
	indexName        = "name"
	indexHash        = "hash"
	indexOrder       = "order"     // seen commands, oldest first
	indexAgent       = "agent"     // issued certificates by their agent
	indexCampaign    = "campaign"  // commands by the campaign that they belong to
	indexDone        = "done"      // finished commands by the time of their end
	indexCollected   = "collected" // collected orders by the time at which what is left of them goes
	// Of orders at the built-in CA: those that wait for it. Of the others: all by issuer
	// or stage, the open ones, and those for which something is to be done.
	indexBuiltin = "builtin"
	indexStage   = "stage"
	indexAge     = "age" // by the time at which they came in
	indexOpen    = "open"
	indexDue     = "due"
	// indexRevocation has the orders whose certificates are to be revoked, or are.
	indexRevocation = "revocation"
)

// An index is keys that this package builds itself: a prefix by which records are
// looked up, followed by the record's id, so that keys are unique and sort the
// same on every node. That makes any index good for keyset pagination.
type index struct {
	name string
	// keys of a record; none leaves it out of the index.
	keys func(record any) [][]byte
	// whole keys do not end with the record's id, and are unique nevertheless.
	whole bool
	// same, when it is set, reports that two records with one id have the same keys.
	// Records are put far more often than their keys change.
	same func(a, b any) bool
}

// sameBy makes an index's same from what the keys are made of, besides the id.
func sameBy[T any](same func(a, b *T) bool) func(a, b any) bool {
	return func(a, b any) bool { return same(a.(*T), b.(*T)) }
}

// key joins parts to a key that sorts by the first part, then the second, and
// so on, whatever octets they hold: strings are escaped and terminated.
func key(parts ...any) []byte {
	size := 0
	for _, part := range parts {
		switch p := part.(type) {
		case string:
			size += len(p) + 2
		case []byte:
			size += len(p)
		default:
			size += 12 // the longest
		}
	}
	k := make([]byte, 0, size)
	for _, part := range parts {
		switch p := part.(type) {
		case string:
			if strings.IndexByte(p, 0) >= 0 {
				p = strings.ReplaceAll(p, "\x00", "\x00\xff")
			}
			k = append(append(k, p...), 0, 1)
		case uint64:
			k = binary.BigEndian.AppendUint64(k, p)
		case uint32:
			k = binary.BigEndian.AppendUint32(k, p)
		case time.Time:
			// The sign bit is turned, so that years before 1970 sort first.
			k = binary.BigEndian.AppendUint64(k, uint64(p.Unix())^1<<63) // a bit pattern, not a number
			k = binary.BigEndian.AppendUint32(k, uint32(p.Nanosecond())) // 0..999999999
		case []byte:
			k = append(k, p...)
		default:
			// Without the value, which would then be put on the heap at each call.
			panic("fleet: a value of a type that cannot be part of a key")
		}
	}
	return k
}

func only(k []byte) [][]byte { return [][]byte{k} }

func agentKey(a *Agent) []byte             { return key(a.ID) }
func certificateKey(c *Certificate) []byte { return key(c.Agent, c.Name) }
func orderKey(o *Order) []byte             { return key(o.Agent, o.ID) }

// identities of an agent that a connection may show.
func identities(a *Agent) []*Identity {
	list := []*Identity{&a.Current}
	if a.Pending != nil {
		list = append(list, a.Pending)
	}
	return list
}

func agentIndexes() []index {
	return []index{
		{name: indexID, keys: func(r any) [][]byte { return only(agentKey(r.(*Agent))) }},
		{name: indexIdentity, keys: func(r any) [][]byte {
			a := r.(*Agent)
			var keys [][]byte
			for _, identity := range identities(a) {
				keys = append(keys, key(identity.Fingerprint, a.ID))
			}
			return keys
		}, same: sameBy(func(a, b *Agent) bool {
			return slices.EqualFunc(identities(a), identities(b), func(x, y *Identity) bool { return x.Fingerprint == y.Fingerprint })
		})},
		{name: indexPublicKey, keys: func(r any) [][]byte {
			a := r.(*Agent)
			return only(key(a.Enrolled.PublicKeyFingerprint, a.ID))
		}, same: sameBy(func(a, b *Agent) bool { return a.Enrolled.PublicKeyFingerprint == b.Enrolled.PublicKeyFingerprint })},
		{name: indexHorizon, keys: horizonKeys},
		{name: indexHostname, keys: func(r any) [][]byte {
			a := r.(*Agent)
			return only(key(strings.ToLower(a.Host.Hostname), a.ID))
		}, same: sameBy(func(a, b *Agent) bool { return a.Host.Hostname == b.Host.Hostname })},
	}
}

func certificateIndexes() []index {
	column := func(name string, value func(Columns) string) index {
		return index{name: name, keys: func(r any) [][]byte {
			c := r.(*Certificate)
			v := value(c.Columns)
			if v == "" {
				return nil
			}
			return only(key(v, c.Agent, c.Name))
		}, same: sameBy(func(a, b *Certificate) bool { return value(a.Columns) == value(b.Columns) })}
	}
	return []index{
		{name: indexID, keys: func(r any) [][]byte { return only(certificateKey(r.(*Certificate))) }},
		column(indexState, func(c Columns) string { return string(c.State) }),
		column(indexIssuer, func(c Columns) string { return c.Issuer }),
		column(indexFingerprint, func(c Columns) string { return c.Fingerprint }),
		column(indexSerial, func(c Columns) string { return c.Serial }),
		{name: indexAttention, keys: func(r any) [][]byte {
			c := r.(*Certificate)
			if !c.Columns.Attention {
				return nil
			}
			return only(certificateKey(c))
		}, same: sameBy(func(a, b *Certificate) bool { return a.Columns.Attention == b.Columns.Attention })},
		{name: indexNotAfter, keys: func(r any) [][]byte {
			c := r.(*Certificate)
			if c.Columns.NotAfter.IsZero() {
				return nil
			}
			return only(key(c.Columns.NotAfter, c.Agent, c.Name))
		}, same: sameBy(func(a, b *Certificate) bool { return a.Columns.NotAfter.Equal(b.Columns.NotAfter) })},
		{name: indexName, keys: func(r any) [][]byte {
			c := r.(*Certificate)
			keys := make([][]byte, 0, len(c.Columns.Names))
			for _, name := range c.Columns.Names {
				keys = append(keys, key(name, c.Agent, c.Name))
			}
			return keys
		}, same: sameBy(func(a, b *Certificate) bool { return slices.Equal(a.Columns.Names, b.Columns.Names) })},
	}
}

// schemas of all tables, in the order in which snapshots hold them.
var schemas = []struct {
	table   Table
	indexes []index
}{
	{tablePosition, []index{{name: indexID, keys: func(any) [][]byte { return only(key("position")) }}}},
	{tableInfos, []index{{name: indexID, keys: func(r any) [][]byte { return only(key(string(r.(*tableInfo).Table))) }}}},
	{TableCA, []index{{name: indexID, keys: func(any) [][]byte { return only(key("ca")) }}}},
	{TableEnrollmentTokens, []index{{name: indexID, keys: func(r any) [][]byte { return only(key(r.(*EnrollmentToken).ID)) }}}},
	{TableAPITokens, []index{
		{name: indexID, keys: func(r any) [][]byte { return only(key(r.(*APIToken).ID)) }},
		{name: indexHash, keys: func(r any) [][]byte { t := r.(*APIToken); return only(key(t.Hash[:])) }, whole: true},
	}},
	{TableAgents, agentIndexes()},
	{TablePresence, []index{{name: indexID, keys: func(r any) [][]byte { return only(key(r.(*presence).Agent)) }}}},
	{TableCertificates, certificateIndexes()},
	{TableOrders, orderIndexes()},
	{TableAssignments, []index{{name: indexID, keys: func(r any) [][]byte { return only(key(r.(*Assignment).Name)) }}}},
	{TableAssignmentReports, assignmentReportIndexes()},
	{TableCampaigns, []index{{name: indexID, keys: func(r any) [][]byte { return only(key(r.(*Campaign).ID)) }}}},
	{TableAgentCommands, agentCommandIndexes()},
	{TableIssued, issuedIndexes()},
	{TableRevocations, revocationIndexes()},
	{TableRevocationList, []index{{name: indexID, keys: func(any) [][]byte { return only(key("list")) }}}},
	{TableDays, []index{{name: indexID, keys: func(r any) [][]byte { return only(key(r.(*Day).Date)) }}}},
	{TableClusterCA, []index{{name: indexID, keys: func(any) [][]byte { return only(key("ca")) }}}},
	{TableNodes, []index{{name: indexID, keys: func(r any) [][]byte { return only(key(r.(*ClusterNode).ID)) }}}},
	{TableJoinTokens, []index{{name: indexID, keys: func(r any) [][]byte { return only(key(r.(*JoinToken).ID)) }}}},
	{tableStaged, []index{{name: indexID, keys: stagedKey}}},
	{tableSeen, []index{
		{name: indexID, keys: func(r any) [][]byte { s := r.(*seenCommand); return only(key(s.ID[:])) }},
		{name: indexOrder, keys: func(r any) [][]byte { s := r.(*seenCommand); return only(key(s.Index, s.Ordinal)) }, whole: true},
	}},
}

// databaseSchema is the schemas as the package tables takes them.
func databaseSchema() tables.Schema {
	var all tables.Schema
	for _, s := range schemas {
		table := tables.Table{Name: string(s.table)}
		for _, x := range s.indexes {
			table.Indexes = append(table.Indexes, tables.Index{Name: x.name, Keys: x.keys, Whole: x.whole, Same: x.same})
		}
		all = append(all, table)
	}
	return all
}
