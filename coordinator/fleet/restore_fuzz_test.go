package fleet

import (
	"bufio"
	"bytes"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/require"
)

// oneRecord is a snapshot with one record in one table, all sums right.
func oneRecord(t require.TestingT, table Table, raw []byte) []byte {
	encode := func(value any) cbor.RawMessage {
		data, err := encoder.Marshal(value)
		require.NoError(t, err)
		return data
	}
	var stream bytes.Buffer
	out := snapshotWriter{w: bufio.NewWriter(&stream)}
	out.raw([]byte(snapshotMagic))
	out.frame(snapshotHeader{Version: snapshotVersion, Index: 1})
	out.frame(snapshotRecords{Table: tablePosition, Count: 1, Records: []cbor.RawMessage{encode(position{Index: 1})}})
	out.frame(snapshotRecords{Table: tableInfos, Count: 2, Records: []cbor.RawMessage{encode(tableInfo{Table: table, Version: 1, Rows: 1})}})
	out.frame(snapshotRecords{Table: table, Count: 3, Records: []cbor.RawMessage{raw}})
	out.frame(snapshotRecords{Count: 3})
	require.NoError(t, out.err)
	require.NoError(t, out.w.Flush())
	return stream.Bytes()
}

// FuzzRestoreOneRecord: whatever a record holds, it is refused, or the state goes
// on and comes out of its own snapshot as it is.
func FuzzRestoreOneRecord(f *testing.F) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for i := range schemas {
		f.Add(uint8(i), []byte{0xa0})
	}
	for table, record := range map[Table]any{
		TableAgents:        Agent{ID: "a", State: AgentActive, EnrolledAt: at, Pending: &Identity{Fingerprint: "f"}},
		TableCertificates:  Certificate{Agent: "a", Name: "x", Data: []byte(`{}`), Columns: Columns{Names: []string{"www.example.com"}, NotAfter: at}},
		TableOrders:        Order{Agent: "a", ID: "o", State: OrderCollected, DoneAt: at},
		TableAgentCommands: AgentCommand{Agent: "a", ID: "c", State: CommandDone, DoneAt: at, Campaign: "campaign"},
		TableNodes:         ClusterNode{ID: "n", Level: 2, Trusts: []string{"r"}},
		TableClusterCA:     ClusterCA{Authorities: []ClusterAuthority{{Certificate: []byte("c")}}},
		TableJoinTokens:    JoinToken{ID: "t", ExpiresAt: at},
		tableSeen:          seenCommand{Index: 1, Time: at.UnixNano()},
	} {
		for i, schema := range schemas {
			if schema.table == table {
				raw, err := encoder.Marshal(record)
				require.NoError(f, err)
				f.Add(uint8(i), raw)
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		if _, err := encoder.Marshal(cbor.RawMessage(raw)); err != nil {
			return // no frame can hold it
		}
		stream := oneRecord(t, schemas[int(which)%len(schemas)].table, raw)
		state, err := New()
		require.NoError(t, err)
		if state.Restore(bytes.NewReader(stream)) != nil {
			require.Zero(t, state.Index())
			return
		}
		command, err := NewCommand(at, TouchAgents{Seen: []Seen{{Agent: "a", At: at}}})
		require.NoError(t, err)
		entry, err := EncodeEntry([]Command{command})
		require.NoError(t, err)
		_, _, err = state.Apply(state.Index()+1, entry)
		require.NoError(t, err)
		var first, second bytes.Buffer
		require.NoError(t, state.Snapshot().Persist(&first))
		again, err := New()
		require.NoError(t, err)
		require.NoError(t, again.Restore(bytes.NewReader(first.Bytes())))
		require.NoError(t, again.Snapshot().Persist(&second))
		require.Equal(t, first.Bytes(), second.Bytes())
	})
}
