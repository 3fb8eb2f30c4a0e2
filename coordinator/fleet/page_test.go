package fleet_test

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// inventory enrols agents with certificates of many kinds.
func inventory(b *bench, agents, each int) {
	for a := range agents {
		id := fmt.Sprintf("agent%02d", a)
		create := token("t" + id)
		create.Labels = map[string]string{"site": []string{"north", "south"}[a%2], "n": id}
		b.ok(create)
		b.ok(enrolment("t"+id, id))
		var rows []fleet.Row
		for c := range each {
			n := a*each + c
			data := fmt.Sprintf(`{"names":["h%d.example.com","shared%d.example.com"],"state":%q,"issuer":%q,"serial":"%02x","fingerprint":"f%d"`,
				n, n%3, []string{"valid", "failed", "renewing"}[n%3], []string{"le", "corp"}[n%2], n%5, n%7)
			if n%4 > 0 {
				data += fmt.Sprintf(`,"not_after":%q`, testTime.Add(time.Duration(n*37%50)*time.Hour).Format(time.RFC3339))
			}
			if n%6 == 0 {
				data += `,"needs_attention":"look"`
			}
			rows = append(rows, row(b.t, wire.Row{Name: fmt.Sprintf("c%02d", c), Revision: uint64(c + 1), Data: []byte(data + "}")}))
		}
		b.ok(fleet.SyncAgent{AgentID: id, BootID: "b", Sequence: 1, Revision: uint64(each), HeadRevision: uint64(each), Rows: rows})
	}
}

func allCertificates(t testingT, v *fleet.View, f fleet.CertificateFilter, limit int, back bool) []*fleet.Certificate {
	t.Helper()
	var all []*fleet.Certificate
	for page := (fleet.Page{Limit: limit, Back: back}); ; {
		list, next, err := v.Certificates(f, page)
		require.NoError(t, err)
		require.LessOrEqual(t, len(list), limit)
		all = append(all, list...)
		if next == "" {
			return all
		}
		page.Cursor = next
	}
}

// TestPagesHoldExactlyWhatTheFilterSays compares every combination of filters,
// each with an index of its own, with a plain look at all records.
func TestPagesHoldExactlyWhatTheFilterSays(t *testing.T) {
	b := newBench(t)
	inventory(b, 6, 9)
	view := b.view()
	everything := allCertificates(t, view, fleet.CertificateFilter{}, 1000, false)
	require.Len(t, everything, 54)
	rapid.Check(t, func(rt *rapid.T) {
		maybe := func(label string, values ...string) string {
			return rapid.SampledFrom(append(values, "", "", "")).Draw(rt, label)
		}
		f := fleet.CertificateFilter{
			Agent: maybe("agent", "agent01", "agent0", "none"), Name: maybe("name", "shared1.example.com", "h5.example.com"),
			NameContains: maybe("contains", "SHARED2", "h1", "c03"), Issuer: maybe("issuer", "le"),
			State: wire.State(maybe("state", "valid", "failed")), Attention: rapid.IntRange(0, 4).Draw(rt, "attention") == 0,
			Fingerprint: maybe("fingerprint", "f3"), Serial: maybe("serial", "02"),
		}
		if site := maybe("site", "north"); site != "" {
			f.Labels = map[string]string{"site": site}
		}
		f.Sort = rapid.SampledFrom([]fleet.CertificateSort{fleet.SortByFilter, fleet.SortByID, fleet.SortByExpiry}).Draw(rt, "sort")
		back := rapid.Bool().Draw(rt, "back")
		if rapid.Bool().Draw(rt, "expiring") {
			f.ExpiringBefore = testTime.Add(time.Duration(rapid.IntRange(0, 50).Draw(rt, "hours")) * time.Hour)
		}
		var want []string
		for _, c := range everything {
			agent, _ := view.Agent(c.Agent)
			col := c.Columns
			has := func(sub string) bool {
				return strings.Contains(c.Name, sub) || slices.ContainsFunc(col.Names, func(n string) bool { return strings.Contains(n, sub) })
			}
			if (f.Agent == "" || c.Agent == f.Agent) && (f.Name == "" || slices.Contains(col.Names, f.Name)) &&
				has(strings.ToLower(f.NameContains)) && (f.Issuer == "" || col.Issuer == f.Issuer) &&
				(f.State == "" || col.State == f.State) && (!f.Attention || col.Attention) &&
				(f.Fingerprint == "" || col.Fingerprint == f.Fingerprint) && (f.Serial == "" || col.Serial == f.Serial) &&
				(f.Labels == nil || agent.Labels["site"] == f.Labels["site"]) &&
				(f.Sort != fleet.SortByExpiry || !col.NotAfter.IsZero()) &&
				(f.ExpiringBefore.IsZero() || !col.NotAfter.IsZero() && col.NotAfter.Before(f.ExpiringBefore)) {
				want = append(want, c.Agent+"/"+c.Name)
			}
		}
		list := allCertificates(rt, view, f, rapid.IntRange(1, 20).Draw(rt, "limit"), back)
		byID := func(a, b *fleet.Certificate) int {
			return cmp.Or(cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Name, b.Name))
		}
		order := byID
		if f.Sort == fleet.SortByExpiry || f.Sort == fleet.SortByFilter && !f.ExpiringBefore.IsZero() && f.Fingerprint+f.Serial+f.Name == "" {
			order = func(a, b *fleet.Certificate) int {
				return cmp.Or(a.Columns.NotAfter.Compare(b.Columns.NotAfter), byID(a, b))
			}
		}
		if back {
			slices.Reverse(list)
		}
		require.True(rt, slices.IsSortedFunc(list, order), "in order")
		var got []string
		for _, c := range list {
			got = append(got, c.Agent+"/"+c.Name)
		}
		require.ElementsMatch(rt, want, got)
	})
}

func TestPagesStayRightWhileRecordsComeAndGo(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		b.enroll(fmt.Sprintf("m%02d", i))
	}
	first, next, err := b.view().Agents(fleet.AgentFilter{}, fleet.Page{Limit: 10})
	require.NoError(t, err)
	require.Len(t, first, 10)
	b.enroll("a-before")
	b.enroll("z-after")
	rest, next, err := b.view().Agents(fleet.AgentFilter{}, fleet.Page{Limit: 100, Cursor: next})
	require.NoError(t, err)
	assert.Empty(t, next)
	require.Len(t, rest, 11)
	assert.Equal(t, "m10", rest[0].ID)
	assert.Equal(t, "z-after", rest[10].ID)
}

func TestAgentFilters(t *testing.T) {
	b := newBench(t)
	inventory(b, 4, 1)
	b.ok(fleet.RetireAgent{AgentID: "agent03"})
	soon := testTime.Add(time.Hour)
	b.ok(fleet.SyncAgent{AgentID: "agent01", BootID: "b", Sequence: 2, Host: &wire.HostReport{Hostname: "Web-1", SafeUntil: &soon},
		BaseRevision: 1, Revision: 1, HeadRevision: 1, Digest: b.agent("agent01").Sync.Digest})
	for want, f := range map[string]fleet.AgentFilter{
		"agent00 agent01 agent02 agent03": {},
		"agent00 agent02":                 {Labels: map[string]string{"site": "north"}},
		"agent02":                         {Labels: map[string]string{"site": "north", "n": "agent02"}},
		"agent03":                         {State: fleet.AgentRetired},
		"agent01":                         {NameContains: "web"},
		"agent00":                         {NameContains: "AGENT00"},
		"agent01 ":                        {SafeBefore: soon.Add(1)},
		"":                                {SafeBefore: soon},
		// The host of agent01 is called Web-1, the others host.
		"agent00 agent02 agent03 agent01": {ByHostname: true},
		"agent00 agent02 ":                {ByHostname: true, Labels: map[string]string{"site": "north"}},
	} {
		for _, limit := range []int{0, 1} {
			ids := agentIDsIn(t, b.view(), f, fleet.Page{Limit: limit})
			assert.Equal(t, strings.TrimSpace(want), strings.Join(ids, " "), "%+v", f)
			back := agentIDsIn(t, b.view(), f, fleet.Page{Limit: limit, Back: true})
			slices.Reverse(back)
			assert.Equal(t, ids, back, "%+v, back", f)
		}
	}
	b.ok(fleet.SyncAgent{AgentID: "agent02", BootID: "b", Sequence: 2, Host: &wire.HostReport{Hostname: "a-1"},
		BaseRevision: 1, Revision: 1, HeadRevision: 1, Digest: b.agent("agent02").Sync.Digest})
	assert.Equal(t, []string{"agent02", "agent00", "agent03", "agent01"}, agentIDsIn(t, b.view(), fleet.AgentFilter{ByHostname: true}, fleet.Page{}), "a host that has another name")
}

func TestCursorsOfOtherListsAreRefused(t *testing.T) {
	b := newBench(t)
	inventory(b, 3, 3)
	_, next, err := b.view().Certificates(fleet.CertificateFilter{State: "valid"}, fleet.Page{Limit: 1})
	require.NoError(t, err)
	require.NotEmpty(t, next)
	for name, cursor := range map[string]string{
		"no base64": "!!", "no index": base64.RawURLEncoding.EncodeToString([]byte("state")), "of another filter": next, "cut": next[:3],
	} {
		_, _, err = b.view().Certificates(fleet.CertificateFilter{State: "failed"}, fleet.Page{Cursor: cursor})
		require.ErrorIs(t, err, fleet.ErrCursor, name)
		_, _, err = b.view().Agents(fleet.AgentFilter{}, fleet.Page{Cursor: cursor})
		require.ErrorIs(t, err, fleet.ErrCursor, name)
	}
	_, next, err = b.view().Agents(fleet.AgentFilter{}, fleet.Page{Limit: 1})
	require.NoError(t, err)
	for name, other := range map[string]fleet.AgentFilter{"the other way": {}, "another sort": {ByHostname: true}} {
		_, _, err = b.view().Agents(other, fleet.Page{Cursor: next, Back: true})
		require.ErrorIs(t, err, fleet.ErrCursor, name)
	}
}

func TestVersionsAreThatOfTheLastChange(t *testing.T) {
	b := newBench(t)
	assert.Zero(t, b.view().Version(fleet.TableAgents))
	old := b.view()
	b.enroll("agent")
	enrolled := b.view().Version(fleet.TableAgents)
	assert.Equal(t, b.state.Index(), enrolled)
	b.ok(token("other"))
	assert.Equal(t, enrolled, b.view().Version(fleet.TableAgents))
	assert.Equal(t, b.state.Index(), b.view().Version(fleet.TableAgents, fleet.TableEnrollmentTokens))
	assert.Equal(t, b.state.Index(), b.view().Index())
	assert.Zero(t, old.Version(fleet.TableAgents), "a view stays what it was")
	assert.Zero(t, old.Index())
}

func TestRowsAreCheckedAndReadByTheProposer(t *testing.T) {
	for name, test := range map[string]struct {
		row  wire.Row
		want string
	}{
		"no name":   {wire.Row{Data: []byte(`{}`)}, "name"},
		"long name": {wire.Row{Name: strings.Repeat("x", wire.MaxNameLen+1), Data: []byte(`{}`)}, "name"},
		"no UTF-8":  {wire.Row{Name: "\xff", Data: []byte(`{}`)}, "UTF-8"},
		"no JSON":   {wire.Row{Name: "a", Data: []byte(`{`)}, "not a summary"},
		"too large": {wire.Row{Name: "a", Data: make([]byte, wire.MaxRowBytes+1)}, "at most"},
	} {
		_, err := fleet.NewRow(test.row)
		require.ErrorContains(t, err, test.want, name)
	}
	got := row(t, wire.Row{Name: "a", Revision: 3, Data: []byte(`{"names":["B.example.com","a.example.com"],"state":"failed","needs_attention":"x","later_field":1}`)})
	assert.Equal(t, fleet.Columns{Names: []string{"a.example.com", "b.example.com"}, State: wire.StateFailed, Attention: true}, got.Columns)
}

// What an agent sends may be valid JSON and yet not come out of the log again;
// it must not get in.
func TestValuesThatWouldNotComeOutOfTheLogAreRefusedByTheProposer(t *testing.T) {
	b := newBench(t)
	far := time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -3600)) // the year 10000 in UTC
	for _, payload := range []fleet.Payload{
		fleet.SyncAgent{AgentID: "a", Host: &wire.HostReport{StartedAt: far}},
		fleet.SyncAgent{AgentID: "a", Events: []wire.Event{{At: far}}},
		fleet.SyncAgent{AgentID: "a", Collected: []string{"\xff"}},
		fleet.EnrollAgent{AgentID: "\xff"},
	} {
		_, err := fleet.NewCommand(b.now, payload)
		require.Error(t, err)
	}
}

func TestSplitPiecesAreSmallAndComplete(t *testing.T) {
	p := fleet.SyncAgent{AgentID: "a", BootID: "b", Sequence: 1, BaseRevision: 5, Revision: 1005, HeadRevision: 2000, Host: &wire.HostReport{Hostname: "h"}}
	for i := range 1000 {
		p.Rows = append(p.Rows, row(t, wire.Row{Name: fmt.Sprintf("r%d", i), Revision: uint64(1005 - i),
			Data: []byte(`{"issuer":"` + strings.Repeat("x", 3000) + `"}`)}))
	}
	for i := range wire.MaxEvents {
		p.Events = append(p.Events, wire.Event{Sequence: uint64(i + 1), Detail: strings.Repeat("d", wire.MaxTextLen)})
	}
	for i := range wire.MaxOrders {
		order := placement(fmt.Sprintf("o%d", i), "www.example.com")
		order.CSR = make([]byte, 16<<10)
		p.Orders = append(p.Orders, order)
	}
	b := newBench(t)
	var rows, events, orders, hosts int
	base := p.BaseRevision
	for _, piece := range fleet.SplitSync(p, fleet.TargetEntry) {
		assert.Less(t, b.command(piece).Size(), fleet.TargetEntry+64<<10)
		assert.Equal(t, base, piece.BaseRevision)
		base = piece.Revision
		rows, events, orders = rows+len(piece.Rows), events+len(piece.Events), orders+len(piece.Orders)
		if piece.Host != nil {
			hosts++
		}
	}
	assert.Equal(t, p.Revision, base)
	assert.Equal(t, []int{1000, wire.MaxEvents, wire.MaxOrders, 1}, []int{rows, events, orders, hosts})
}
