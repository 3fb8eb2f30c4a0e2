package fleet_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/selector"
	"github.com/certctl/certctl/shared/wire"
)

// scopedFleet is a fleet of hosts with labels of all kinds, and something in every
// table for each of them.
func scopedFleet(t *rapid.T) *bench {
	b := newBench(t)
	envs, regions := []string{"", "prod", "qa", "dev"}, []string{"", "eu", "us"}
	selectors := []string{"*", "env=prod", "env=prod,region=eu", "env in (prod,qa)", "region=us", "!env", "env=none"}
	for i, text := range selectors {
		b.ok(fleet.PutAssignment{Actor: "local", Name: fmt.Sprintf("as%d", i), Selector: text, Template: []byte(`{}`)})
		if i < fleet.MaxRunning {
			b.ok(fleet.BeginCampaign{Actor: "local", ID: fmt.Sprintf("campaign%08d", i), Selector: text, Over: time.Hour})
		}
	}
	scopes := []fleet.Scope{nil, {"env": {"prod"}}, {"env": {"prod", "qa"}}, {"env": {"prod"}, "region": {"eu"}}, {"region": {"us"}}}
	for i, scope := range scopes {
		b.ok(fleet.CreateAPIToken{Actor: "local", ID: fmt.Sprintf("api%d", i), Hash: [32]byte{byte(i + 1)}, Role: fleet.RoleViewer, Scope: scope})
	}
	for a := range rapid.IntRange(0, 8).Draw(t, "hosts") {
		id := fmt.Sprintf("host%02d", a)
		create := token("t" + id)
		create.Labels = map[string]string{}
		for label, values := range map[string][]string{"env": envs, "region": regions} {
			if value := rapid.SampledFrom(values).Draw(t, label); value != "" {
				create.Labels[label] = value
			}
		}
		b.ok(create)
		b.ok(enrolment("t"+id, id))
		builtin := placement("o1", "www.example.com")
		builtin.Issuer = "builtin"
		open := placement("o2", "www.example.com")
		open.Issuer = "builtin"
		until := b.now.Add(time.Duration(a) * time.Hour)
		b.ok(fleet.SyncAgent{
			AgentID: id, BootID: "b1", Sequence: 1, Revision: 2, HeadRevision: 2,
			Host: &wire.HostReport{Hostname: "host-" + id, SafeUntil: &until, NotSafe: rapid.IntRange(0, 1).Draw(t, "not safe")},
			Rows: []fleet.Row{
				row(b.t, wireRow("x", 1, "x.example.com", b.now.Add(time.Duration(a)*time.Hour))),
				row(b.t, wire.Row{Name: "y", Revision: 2, Data: []byte(`{"names":["y.example.com"],"state":"failed","issuer":"corp","needs_attention":"look"}`)}),
			},
			Orders:        []fleet.OrderPlacement{builtin, open, placement("s1", "www.example.org")},
			DesiredDigest: "d1", Reports: []wire.AssignmentReport{{Name: "as0", State: wire.AssignmentActive, Revision: 1}},
		})
		b.ok(fleet.CompleteOrder{Agent: id, ID: "o1", ChainPEM: "chain", Serial: fmt.Sprint(a + 1), NotAfter: b.now.Add(time.Hour)})
		b.ok(fleet.CommandAgent{Actor: "local", Agent: id, ID: "command1", Kind: wire.CommandRenew, Certificate: "x"})
		b.ok(fleet.TouchAgents{Seen: []fleet.Seen{{Agent: id, At: b.now}}})
		if rapid.Bool().Draw(t, "revoked") {
			b.ok(fleet.RevokeCertificate{Actor: "local", Serial: fmt.Sprint(a + 1)})
		}
		if rapid.IntRange(0, 4).Draw(t, "retired") == 0 {
			b.ok(fleet.RetireAgent{Actor: "local", AgentID: id})
		}
	}
	b.ok(fleet.InitCA{Actor: "local", Authorities: []fleet.Authority{{Name: "root", Certificate: []byte("c")}}})
	b.ok(fleet.PublishRevocations{ThisUpdate: b.now, NextUpdate: b.now.Add(time.Hour)})
	b.ok(fleet.InitClusterCA{Actor: "local", Authority: clusterAuthority("r1", fleet.AuthorityActive)})
	b.ok(fleet.AnnounceNode{Node: clusterNode("n1", "k1")})
	b.ok(fleet.CreateJoinToken{Actor: "local", ID: "t1", SecretHash: [32]byte{42}, ExpiresAt: b.now.Add(time.Hour)})
	b.ok(fleet.RecordDay{Day: aDay(b.now.AddDate(0, 0, -1), 3)})
	return b
}

// paged collects a list page by page.
func paged[T any](list func(fleet.Page) ([]*T, string, error)) (all []any) {
	for page := (fleet.Page{Limit: 2}); ; {
		found, next, err := list(page)
		if err != nil {
			panic(err)
		}
		for _, record := range found {
			all = append(all, record)
		}
		if page.Cursor = next; next == "" {
			return all
		}
	}
}

func anys[T any](list []*T) (all []any) {
	for _, record := range list {
		all = append(all, record)
	}
	return all
}

// looks are the looks at a view that find records, by the name of the method.
func looks() map[string]func(v *fleet.View) []any {
	one := func(record any, ok bool) []any {
		if !ok {
			return nil
		}
		return []any{record}
	}
	hosts := func(visit func(id string) []any) (all []any) {
		for a := range 12 {
			all = append(all, visit(fmt.Sprintf("host%02d", a))...)
		}
		return all
	}
	return map[string]func(v *fleet.View) []any{
		"Agents": func(v *fleet.View) []any {
			return paged(func(p fleet.Page) ([]*fleet.Agent, string, error) { return v.Agents(fleet.AgentFilter{}, p) })
		},
		"Agents by horizon": func(v *fleet.View) []any {
			return paged(func(p fleet.Page) ([]*fleet.Agent, string, error) {
				return v.Agents(fleet.AgentFilter{BySafeUntil: true}, p)
			})
		},
		"Certificates": func(v *fleet.View) []any {
			return paged(func(p fleet.Page) ([]*fleet.Certificate, string, error) {
				return v.Certificates(fleet.CertificateFilter{}, p)
			})
		},
		"Certificates by expiry": func(v *fleet.View) []any {
			return paged(func(p fleet.Page) ([]*fleet.Certificate, string, error) {
				return v.Certificates(fleet.CertificateFilter{ExpiringBefore: testTime.Add(10 * time.Hour)}, p)
			})
		},
		"Certificates by name": func(v *fleet.View) []any {
			return paged(func(p fleet.Page) ([]*fleet.Certificate, string, error) {
				return v.Certificates(fleet.CertificateFilter{Name: "x.example.com", Labels: map[string]string{"region": "eu"}}, p)
			})
		},
		"BrokeredOrders": func(v *fleet.View) []any {
			return paged(func(p fleet.Page) ([]*fleet.Order, string, error) { return v.BrokeredOrders(fleet.OrderFilter{}, p) })
		},
		"OpenRevocations": func(v *fleet.View) []any { return anys(v.OpenRevocations(0)) },
		"OrderRevocations": func(v *fleet.View) []any {
			return paged(func(p fleet.Page) ([]*fleet.Order, string, error) { return v.OrderRevocations("", false, p) })
		},
		"CommandsOfAgents": func(v *fleet.View) []any {
			return paged(func(p fleet.Page) ([]*fleet.AgentCommand, string, error) {
				return v.CommandsOfAgents(fleet.CommandFilter{}, p)
			})
		},
		"AllAgents":       func(v *fleet.View) []any { return anys(slices.Collect(v.AllAgents())) },
		"AllCertificates": func(v *fleet.View) []any { return anys(slices.Collect(v.AllCertificates())) },
		"AllOrders":       func(v *fleet.View) []any { return anys(slices.Collect(v.AllOrders())) },
		"OrdersIn":        func(v *fleet.View) []any { return anys(v.OrdersIn(fleet.OrderRequested, 0)) },
		"BuiltinOrders":   func(v *fleet.View) []any { return anys(v.BuiltinOrders(0)) },
		"OrdersDue":       func(v *fleet.View) []any { return anys(v.OrdersDue(testTime.Add(time.Hour), 0)) },
		"OpenOrders":      func(v *fleet.View) []any { return anys(v.OpenOrders("", 0)) },
		"OrdersByKey":     func(v *fleet.View) []any { return anys(v.OrdersByKey("slow", "key")) },
		"OrdersBySerial":  func(v *fleet.View) []any { return anys(v.OrdersBySerial("1")) },
		"Revocations":     func(v *fleet.View) []any { return anys(v.Revocations()) },
		"Assignments":     func(v *fleet.View) []any { return anys(v.Assignments()) },
		"Campaigns":       func(v *fleet.View) []any { return anys(v.Campaigns()) },
		"APITokens":       func(v *fleet.View) []any { return anys(v.APITokens()) },
		"EnrollmentTokens": func(v *fleet.View) []any {
			return anys(v.EnrollmentTokens())
		},
		"ClusterNodes":      func(v *fleet.View) []any { return anys(v.ClusterNodes()) },
		"JoinTokens":        func(v *fleet.View) []any { return anys(v.JoinTokens()) },
		"AssignmentReports": func(v *fleet.View) []any { return anys(v.AssignmentReports("as0")) },
		"CampaignCommands":  func(v *fleet.View) []any { return anys(v.CampaignCommands("campaign00000000", 0)) },
		"AgentsBehind": func(v *fleet.View) []any {
			list, count := v.AgentsBehind(1, 100)
			if len(list) != count {
				panic("it counts others")
			}
			return anys(list)
		},
		"EachSeen": func(v *fleet.View) (all []any) {
			v.EachSeen(func(agent *fleet.Agent, _ time.Time) { all = append(all, agent) })
			return all
		},
		"Agent": func(v *fleet.View) []any {
			return hosts(func(id string) []any { a, ok := v.Agent(id); return one(a, ok) })
		},
		"CertificatesOf": func(v *fleet.View) []any { return hosts(func(id string) []any { return anys(v.CertificatesOf(id)) }) },
		"OrdersOf":       func(v *fleet.View) []any { return hosts(func(id string) []any { return anys(v.OrdersOf(id)) }) },
		"AgentCommands":  func(v *fleet.View) []any { return hosts(func(id string) []any { return anys(v.AgentCommands(id)) }) },
		"AssignmentReportsOf": func(v *fleet.View) []any {
			return hosts(func(id string) []any { return anys(v.AssignmentReportsOf(id)) })
		},
		"AgentByIdentity": func(v *fleet.View) []any {
			return hosts(func(id string) []any { a, _, ok := v.AgentByIdentity("cert-" + id); return one(a, ok) })
		},
		"AgentByPublicKey": func(v *fleet.View) []any {
			return hosts(func(id string) []any { a, ok := v.AgentByPublicKey("key-" + id); return one(a, ok) })
		},
		"Certificate": func(v *fleet.View) []any {
			return hosts(func(id string) []any { c, ok := v.Certificate(id, "x"); return one(c, ok) })
		},
		"Order": func(v *fleet.View) []any {
			return hosts(func(id string) []any { o, ok := v.Order(id, "s1"); return one(o, ok) })
		},
		"AgentCommand": func(v *fleet.View) []any {
			return hosts(func(id string) []any { c, ok := v.AgentCommand(id, "command1"); return one(c, ok) })
		},
		"AssignmentReport": func(v *fleet.View) []any {
			return hosts(func(id string) []any { r, ok := v.AssignmentReport(id, "as0"); return one(r, ok) })
		},
		"Assignment": func(v *fleet.View) (all []any) {
			for i := range 7 {
				a, ok := v.Assignment(fmt.Sprintf("as%d", i))
				all = append(all, one(a, ok)...)
			}
			return all
		},
		"Campaign": func(v *fleet.View) (all []any) {
			for i := range 7 {
				c, ok := v.Campaign(fmt.Sprintf("campaign%08d", i))
				all = append(all, one(c, ok)...)
			}
			return all
		},
		"EnrollmentToken": func(v *fleet.View) []any {
			return hosts(func(id string) []any { t, ok := v.EnrollmentToken("t" + id); return one(t, ok) })
		},
		"APIToken": func(v *fleet.View) (all []any) {
			for i := range 5 {
				t, ok := v.APIToken(fmt.Sprintf("api%d", i))
				all = append(all, one(t, ok)...)
			}
			return all
		},
		"APITokenByHash": func(v *fleet.View) (all []any) {
			for i := range 5 {
				t, ok := v.APITokenByHash([32]byte{byte(i + 1)})
				all = append(all, one(t, ok)...)
			}
			return all
		},
		"Issued": func(v *fleet.View) (all []any) {
			for i := range 12 {
				c, ok := v.Issued(fmt.Sprint(i + 1))
				all = append(all, one(c, ok)...)
			}
			return all
		},
		"Revocation": func(v *fleet.View) (all []any) {
			for i := range 12 {
				r, ok := v.Revocation(fmt.Sprint(i + 1))
				all = append(all, one(r, ok)...)
			}
			return all
		},
		"CA":          func(v *fleet.View) []any { ca, ok := v.CA(); return one(ca, ok) },
		"ClusterCA":   func(v *fleet.View) []any { ca, ok := v.ClusterCA(); return one(ca, ok) },
		"ClusterNode": func(v *fleet.View) []any { n, ok := v.ClusterNode("n1"); return one(n, ok) },
		"JoinToken":   func(v *fleet.View) []any { t, ok := v.JoinToken("t1"); return one(t, ok) },
		"Days":        func(v *fleet.View) []any { return anys(v.Days("")) },
		"Day": func(v *fleet.View) []any {
			day, ok := v.Day(testTime.AddDate(0, 0, -1).Format(time.DateOnly))
			return one(day, ok)
		},
		"NewestList": func(v *fleet.View) []any { l, _, ok := v.NewestList(); return one(l, ok) },
	}
}

// TestAScopedViewIsAPartOfTheWhole: whatever is looked at in whatever way, who is limited
// to a scope is told what everybody is told, less what is of hosts outside.
func TestAScopedViewIsAPartOfTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := scopedFleet(t)
		scope := fleet.Scope{}
		for label, values := range map[string][]string{"env": {"dev", "none", "prod", "qa"}, "region": {"eu", "us"}} {
			if picked := rapid.SliceOfNDistinct(rapid.SampledFrom(values), 0, 2, rapid.ID[string]).Draw(t, label); len(picked) > 0 {
				slices.Sort(picked)
				scope[label] = picked
			}
		}
		if len(scope) == 0 {
			scope["env"] = []string{"prod"}
		}
		whole := b.view()
		inside := func(agent string) bool {
			a, ok := whole.Agent(agent)
			return ok && scope.Allows(a.Labels)
		}
		there := func(record any) bool {
			switch r := record.(type) {
			case *fleet.Agent:
				return inside(r.ID)
			case *fleet.EnrollmentToken:
				return scope.Allows(r.Labels)
			case *fleet.APIToken:
				return !r.Scope.IsZero() && r.Scope.Within(scope)
			case *fleet.Campaign:
				return scope.Covers(r.Selector)
			case *fleet.Assignment:
				chosen, err := selector.Parse(r.Selector)
				require.NoError(t, err)
				chosenHere := false
				for agent := range whole.AllAgents() {
					chosenHere = chosenHere || agent.State == fleet.AgentActive && inside(agent.ID) && chosen.Matches(agent.Labels)
				}
				return chosenHere || chosen.Within(scope)
			case *fleet.CA, *fleet.ClusterCA, *fleet.ClusterNode, *fleet.JoinToken, *fleet.RevocationList, *fleet.Day:
				return false
			}
			return inside(reflect.ValueOf(record).Elem().FieldByName("Agent").String())
		}
		limited := whole.Within(scope)
		for name, look := range looks() {
			var want []any
			for _, record := range look(whole) {
				if there(record) {
					want = append(want, record)
				}
			}
			assert.Equal(t, want, look(limited), "%s under %s", name, scope)
		}
		assert.Len(t, slices.Collect(limited.AllAgents()), limited.Rows(fleet.TableAgents))
		assert.Len(t, slices.Collect(limited.AllCertificates()), limited.Rows(fleet.TableCertificates))
		orders := 0
		for _, count := range limited.OrderCounts() {
			orders += count.Count
		}
		open := 0
		for _, order := range limited.OpenOrders("", 0) {
			if order.Brokered() {
				open++
			}
		}
		assert.Equal(t, open, orders)
		for agent := range whole.AllAgents() {
			if inside(agent.ID) {
				assert.Equal(t, whole.LastSeen(agent.ID), limited.LastSeen(agent.ID))
				assert.Equal(t, whole.NeedingAttention(agent.ID), limited.NeedingAttention(agent.ID))
				continue
			}
			assert.Zero(t, limited.LastSeen(agent.ID))
			assert.Zero(t, limited.NeedingAttention(agent.ID))
		}
		if until, ok := limited.SafeUntil(testTime); ok {
			assert.True(t, slices.ContainsFunc(slices.Collect(limited.AllAgents()), func(a *fleet.Agent) bool { return a.Host.SafeUntil != nil && a.Host.SafeUntil.Equal(until) }))
		}
		assert.Equal(t, whole.Index(), limited.Index())
		assert.Equal(t, scope, limited.Watched().Scope(), "who is watched is limited as before")
	})
}

// A new look at views has to be one of those that TestAScopedViewIsAPartOfTheWhole knows.
func TestEveryLookAtAViewIsLimited(t *testing.T) {
	elsewhere := []string{
		// Of the whole state, and of no host.
		"Index", "RestoredAt", "AuditFacts", "AuditHead", "Version", "Within", "Scope", "Watched", "ReadOnly",
		// Checked there by themselves.
		"Rows", "OrderCounts", "LastSeen", "NeedingAttention", "SafeUntil",
		// For the coordinator's own work, on views without a scope, made of looks that
		// are limited.
		"Settled", "CheckSync", "NextOrderDue", "OrdersPlaced", "RevocationList",
	}
	known := map[string]bool{}
	for name := range looks() {
		name, _, _ = strings.Cut(name, " ")
		known[name] = true
	}
	typ := reflect.TypeFor[*fleet.View]()
	for i := range typ.NumMethod() {
		name := typ.Method(i).Name
		assert.True(t, known[name] || slices.Contains(elsewhere, name), "View.%s: add it to looks, or say why it needs no scope", name)
	}
}

func TestScopeWithin(t *testing.T) {
	prod := fleet.Scope{"env": {"prod"}}
	wide := fleet.Scope{"env": {"prod", "qa"}}
	deep := fleet.Scope{"env": {"prod"}, "region": {"eu"}}
	for _, inside := range []fleet.Scope{prod, deep} {
		assert.True(t, inside.Within(prod), inside.String())
	}
	for _, outside := range []fleet.Scope{nil, wide, {"region": {"eu"}}} {
		assert.False(t, outside.Within(prod), outside.String())
		assert.True(t, outside.Within(nil))
	}
	assert.True(t, prod.Covers("env=prod,role=web"))
	assert.False(t, prod.Covers("*"))
	assert.False(t, prod.Covers("env in (prod,qa)"))
	assert.False(t, prod.Covers("no selector at all"))
	assert.False(t, prod.Allows(nil))
	assert.True(t, fleet.Scope(nil).Allows(nil))
}
