package linear

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/wire"
)

// script records operations one after the other.
type script struct {
	*History
	client *Client
}

func newScript() *script {
	h := NewHistory()
	return &script{History: h, client: h.Client()}
}

func (s *script) did(in Input, out Output) *script {
	s.client.Begin(in).Done(out)
	return s
}

func (s *script) maybe(in Input) *script {
	s.client.Begin(in).Unknown()
	return s
}

func TestTheRulesOfTheObjects(t *testing.T) {
	create := Input{Kind: CreateToken, Object: "t", Limit: 1}
	use := func(key string) Input { return Input{Kind: UseToken, Object: "t", Value: key} }
	readToken := Input{Kind: ReadToken, Object: "t"}
	revoke := Input{Kind: RevokeToken, Object: "t"}
	place := Input{Kind: PlaceOrder, Object: "o"}
	complete := func(serial string) Input { return Input{Kind: CompleteOrder, Object: "o", Value: serial} }
	collect := Input{Kind: CollectOrder, Object: "o"}
	readOrder := Input{Kind: ReadOrder, Object: "o"}
	put := func(content string) Input { return Input{Kind: PutAssignment, Object: "a", Value: content} }
	putIf := func(content string, previous uint64) Input {
		return Input{Kind: PutAssignment, Object: "a", Value: content, IfRevision: true, Previous: previous}
	}
	remove := Input{Kind: DeleteAssignment, Object: "a"}
	readAssignment := Input{Kind: ReadAssignment, Object: "a"}

	good := map[string]*script{
		"nothing": newScript(),
		"a token": newScript().did(use("k"), Output{Code: wire.CodeTokenUnknown}).did(create, Output{}).
			did(create, Output{Code: wire.CodeConflict}).did(use("k"), Output{}).did(use("k"), Output{Repeated: true}).
			did(use("l"), Output{Code: wire.CodeTokenUsed}).did(revoke, Output{}).did(revoke, Output{}).
			did(use("l"), Output{Code: wire.CodeTokenRevoked}).did(use("k"), Output{Repeated: true}).
			did(readToken, Output{Exists: true, State: revoked, Number: 1}),
		"no token": newScript().did(revoke, Output{Code: wire.CodeNotFound}).did(readToken, Output{}),
		"an order": newScript().did(complete("1"), Output{Code: wire.CodeNotFound}).did(place, Output{State: "requested"}).
			did(collect, Output{}).did(complete("1"), Output{State: "issued"}).did(complete("2"), Output{State: "issued"}).
			did(readOrder, Output{Exists: true, State: "issued", Value: "1"}).did(collect, Output{}).
			did(place, Output{State: "collected"}).did(readOrder, Output{Exists: true, State: "collected", Value: "1"}),
		"an assignment": newScript().did(remove, Output{Code: wire.CodeNotFound}).did(putIf("x", 1), Output{Code: wire.CodeConflict}).
			did(putIf("x", 0), Output{Number: 1}).did(putIf("y", 0), Output{Code: wire.CodeConflict}).did(put("x"), Output{Number: 1}).
			did(put("y"), Output{Number: 2}).did(readAssignment, Output{Exists: true, Value: "y", Number: 2}).
			did(remove, Output{}).did(put("z"), Output{Number: 1}),
		"what may have happened did not":    newScript().maybe(create).did(readToken, Output{}),
		"what may have happened did":        newScript().maybe(create).did(readToken, Output{Exists: true}),
		"what may have happened did later":  newScript().maybe(create).did(readToken, Output{}).did(readToken, Output{Exists: true}),
		"both that may have happened did":   newScript().maybe(create).maybe(use("k")).did(readToken, Output{Exists: true, Number: 1}),
		"each object has its own history":   newScript().did(put("x"), Output{Number: 1}).did(create, Output{}),
		"what was refused did not happen":   refused(create),
		"those at the same time, any order": atTheSameTime(putIf("x", 0), Output{Code: wire.CodeConflict}, put("y"), Output{Number: 1}),
	}
	for name, history := range good {
		t.Run(name, func(t *testing.T) { assert.NoError(t, history.Check(time.Minute)) })
	}

	bad := map[string]*script{
		"a lost write":           newScript().did(create, Output{}).did(readToken, Output{}),
		"a write done twice":     newScript().did(create, Output{}).did(use("k"), Output{}).did(readToken, Output{Exists: true, Number: 2}),
		"more uses than allowed": newScript().did(create, Output{}).did(use("k"), Output{}).did(use("l"), Output{}),
		"a use after the end":    newScript().did(create, Output{}).did(revoke, Output{}).did(use("k"), Output{}),
		"a stale read":           newScript().did(put("x"), Output{Number: 1}).did(put("y"), Output{Number: 2}).did(readAssignment, Output{Exists: true, Value: "x", Number: 1}),
		"a second outcome": newScript().did(place, Output{State: "requested"}).did(complete("1"), Output{State: "issued"}).
			did(complete("2"), Output{State: "issued"}).did(readOrder, Output{Exists: true, State: "issued", Value: "2"}),
		"a change of what was not seen": newScript().did(put("x"), Output{Number: 1}).did(putIf("y", 0), Output{Number: 2}),
		"what was seen is gone again":   newScript().maybe(create).did(readToken, Output{Exists: true}).did(readToken, Output{}),
		"what nobody asked":             newScript().did(readOrder, Output{Exists: true, State: "requested"}),
		"both at the same time won":     atTheSameTime(putIf("x", 0), Output{Number: 1}, putIf("y", 0), Output{Number: 1}),
	}
	for name, history := range bad {
		t.Run(name, func(t *testing.T) {
			var failure *NotLinearizableError
			require.ErrorAs(t, history.Check(time.Minute), &failure)
			assert.Len(t, failure.Objects, 1)
			picture, err := os.ReadFile(failure.Picture)
			require.NoError(t, err)
			table, _, _ := strings.Cut(failure.Objects[0], " ")
			assert.Contains(t, string(picture), table, "the page shows the operations")
			assert.NoError(t, os.Remove(failure.Picture))
		})
	}
}

func refused(in Input) *script {
	s := newScript()
	s.client.Begin(in).Refused()
	return s.did(Input{Kind: ReadToken, Object: in.Object}, Output{})
}

func atTheSameTime(a Input, outA Output, b Input, outB Output) *script {
	s := newScript()
	first, second := s.client.Begin(a), s.Client().Begin(b)
	first.Done(outA)
	second.Done(outB)
	return s
}

func TestAHistoryIsCheckedWhenAllHasEnded(t *testing.T) {
	s := newScript()
	p := s.client.Begin(Input{Kind: ReadToken, Object: "t"})
	require.ErrorContains(t, s.Check(time.Minute), "1 operations are still under way")
	p.Done(Output{})
	require.NoError(t, s.Check(time.Minute))
	ops, unknown := s.Len()
	assert.Equal(t, 1, ops)
	assert.Zero(t, unknown)
}
