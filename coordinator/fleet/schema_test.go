package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/shared/wire"
)

// Where an index says that two records of one id have the same keys, it is so; and
// records that differ in one field alone are told apart wherever their keys differ.
func TestWhatCountsAsTheSameKeysIs(t *testing.T) {
	word := rapid.SampledFrom([]string{"", "a", "b"})
	moment := rapid.Map(rapid.IntRange(0, 2), func(i int) time.Time {
		if i == 0 {
			return time.Time{}
		}
		return time.Unix(int64(i), int64(i)).In(time.FixedZone("", 3600*i))
	})
	agent := rapid.Custom(func(t *rapid.T) any {
		a := &Agent{ID: "id", State: AgentState(word.Draw(t, "state"))}
		a.Enrolled.PublicKeyFingerprint, a.Current.Fingerprint = word.Draw(t, "key"), word.Draw(t, "current")
		a.Host.Hostname = word.Draw(t, "hostname")
		if rapid.Bool().Draw(t, "pending") {
			a.Pending = &Identity{Fingerprint: word.Draw(t, "next")}
		}
		return a
	})
	certificate := rapid.Custom(func(t *rapid.T) any {
		return &Certificate{Agent: "id", Name: "name", Columns: Columns{
			Names: rapid.SliceOfN(word, 0, 2).Draw(t, "names"), Issuer: word.Draw(t, "issuer"), Serial: word.Draw(t, "serial"),
			Fingerprint: word.Draw(t, "fingerprint"), NotAfter: moment.Draw(t, "not after"), Attention: rapid.Bool().Draw(t, "attention"),
		}}
	})
	order := rapid.Custom(func(t *rapid.T) any {
		o := &Order{Agent: "agent", ID: "id", Issuer: word.Draw(t, "issuer"), PublicKeyFingerprint: word.Draw(t, "key"), PlacedAt: moment.Draw(t, "placed"),
			State: rapid.SampledFrom([]OrderState{OrderRequested, OrderPending, OrderIssued, OrderRejected, OrderCollected}).Draw(t, "state")}
		if rapid.Bool().Draw(t, "brokering") {
			o.Brokering = &Brokering{DeliveredAt: moment.Draw(t, "delivered"), CancelledAt: moment.Draw(t, "cancelled"), Next: moment.Draw(t, "next")}
		}
		if rapid.Bool().Draw(t, "problem") {
			o.Problem = &wire.Problem{}
		}
		if rapid.Bool().Draw(t, "revocation") {
			o.Revocation = &OrderRevocation{DoneAt: moment.Draw(t, "revoked")}
		}
		return o
	})
	compared := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		for _, kind := range []struct {
			table  Table
			record *rapid.Generator[any]
		}{{TableAgents, agent}, {TableCertificates, certificate}, {TableOrders, order}} {
			a, b := kind.record.Draw(t, "a"), kind.record.Draw(t, "b")
			if o, ok := a.(*Order); ok && rapid.Bool().Draw(t, "alike") {
				alike := *o
				alike.Brokering = b.(*Order).Brokering
				b = &alike
			}
			for _, x := range indexesOf(kind.table) {
				if x.same == nil {
					continue
				}
				name := fmt.Sprint(kind.table, " by ", x.name)
				if x.same(a, b) {
					require.Equal(t, x.keys(a), x.keys(b), name)
					compared[name]++
				}
				require.True(t, x.same(a, a), name)
			}
		}
	})
	require.Len(t, compared, 17, "of each index, records were the same at times: %v", compared)
}
