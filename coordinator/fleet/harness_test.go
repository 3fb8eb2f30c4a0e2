package fleet_test

import (
	"bytes"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

var testTime = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// testingT is what testing.T and rapid.T have in common.
type testingT interface {
	require.TestingT
	Helper()
}

// bench is a state with a log of its own and a clock that the test sets.
type bench struct {
	t     testingT
	state *fleet.State
	now   time.Time
	log   [][]byte
	facts []fleet.Fact
}

func newBench(t testingT) *bench {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	return &bench{t: t, state: state, now: testTime}
}

func (b *bench) command(payload fleet.Payload) fleet.Command {
	b.t.Helper()
	command, err := fleet.NewCommand(b.now, payload)
	require.NoError(b.t, err)
	return command
}

// entry applies commands as one log entry.
func (b *bench) entry(commands ...fleet.Command) []fleet.Result {
	b.t.Helper()
	data, err := fleet.EncodeEntry(commands)
	require.NoError(b.t, err)
	b.log = append(b.log, data)
	results, facts, err := b.state.Apply(b.state.Index()+1, data)
	require.NoError(b.t, err)
	require.Len(b.t, results, len(commands))
	for i, fact := range facts {
		require.Equal(b.t, b.state.Index(), fact.Index)
		require.EqualValues(b.t, i, fact.Ordinal)
	}
	b.facts = append(b.facts, facts...)
	return results
}

func (b *bench) do(payload fleet.Payload) fleet.Result {
	b.t.Helper()
	return b.entry(b.command(payload))[0]
}

func (b *bench) ok(payload fleet.Payload) fleet.Result {
	b.t.Helper()
	result := b.do(payload)
	require.NoError(b.t, result.Err())
	return result
}

func (b *bench) view() *fleet.View { return b.state.View() }

func (b *bench) agent(id string) *fleet.Agent {
	b.t.Helper()
	agent, ok := b.view().Agent(id)
	require.True(b.t, ok, "agent %s", id)
	return agent
}

// enroll makes a token that allows **.example.com and enrols an agent with it.
func (b *bench) enroll(id string) {
	b.t.Helper()
	if _, ok := b.view().EnrollmentToken("token"); !ok {
		b.ok(token("token"))
	}
	b.ok(enrolment("token", id))
}

// furnish puts something into every table, under the names that random commands
// use.
func (b *bench) furnish() {
	b.t.Helper()
	b.ok(token("t1"))
	b.ok(fleet.InitCA{Actor: "local", Authorities: []fleet.Authority{{Name: "root", Certificate: []byte("c"), SealedKey: []byte("k")}}})
	b.ok(fleet.CreateAPIToken{Actor: "local", ID: "t1", Name: "n", Hash: [32]byte{9}, Role: fleet.RoleViewer})
	b.ok(fleet.PutAssignment{Actor: "local", Name: "as1", Selector: "*", Template: []byte(`{}`)})
	b.ok(fleet.BeginCampaign{Actor: "local", ID: campaigns[0], Selector: "*", Over: time.Hour})
	for i, agent := range []string{"a1", "a2"} {
		b.ok(enrolment("t1", agent))
		order := placement("o1", "www.example.com")
		order.Issuer = "builtin"
		b.ok(fleet.SyncAgent{
			AgentID: agent, BootID: "b1", Sequence: 1, Revision: 1, HeadRevision: 1,
			Rows:          []fleet.Row{row(b.t, wireRow("x", 1, "x.example.com", b.now))},
			Orders:        []fleet.OrderPlacement{order, placement("o2", "www.example.org")},
			DesiredDigest: "d1", Reports: []wire.AssignmentReport{{Name: "as1", State: wire.AssignmentActive, Revision: 1}},
		})
		b.ok(fleet.CompleteOrder{Agent: agent, ID: "o1", ChainPEM: "chain", Serial: fmt.Sprint(i + 1), NotAfter: b.now.Add(time.Hour)})
		b.ok(fleet.CommandAgent{Actor: "local", Agent: agent, ID: "command1", Kind: wire.CommandRenew, Certificate: "x"})
	}
	b.furnishOrders()
	b.ok(fleet.RevokeCertificate{Actor: "local", Serial: "1"})
	b.ok(fleet.PublishRevocations{ThisUpdate: b.now, NextUpdate: b.now.Add(time.Hour)})
	b.ok(fleet.RecordDay{Day: aDay(b.now.AddDate(0, 0, -1), 3)})
	b.ok(fleet.InitClusterCA{Actor: "local", Authority: clusterAuthority("r1", fleet.AuthorityActive)})
	b.ok(fleet.AnnounceNode{Node: clusterNode("n1", "k1")})
	b.ok(fleet.CreateJoinToken{Actor: "local", ID: "t1", SecretHash: [32]byte{42}, ExpiresAt: b.now.Add(time.Hour)})
	for _, table := range fleet.Tables() {
		require.NotZero(b.t, b.view().Rows(table), "table %s: put something into it here", table)
	}
}

func snapshot(t testingT, state *fleet.State) []byte {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, state.Snapshot().Persist(&out))
	return out.Bytes()
}

func token(id string) fleet.CreateEnrollmentToken {
	return fleet.CreateEnrollmentToken{
		Actor: "api_token:admin", ID: id, SecretHash: [32]byte{42}, Labels: map[string]string{"site": "north"},
		NamePatterns: []string{"**.example.com"}, ExpiresAt: testTime.Add(30 * 24 * time.Hour),
	}
}

func identity(key, certificate string) fleet.Identity {
	return fleet.Identity{
		Certificate: []byte(certificate), Fingerprint: "cert-" + certificate, PublicKeyFingerprint: "key-" + key,
		Serial: "0a", NotAfter: testTime.Add(90 * 24 * time.Hour),
	}
}

// enrolment of an agent whose key is named like it.
func enrolment(tokenID, id string) fleet.EnrollAgent {
	return fleet.EnrollAgent{
		TokenID: tokenID, SecretHash: [32]byte{42}, AgentID: id, Identity: identity(id, id),
		Host:  wire.HostReport{Hostname: "host-" + id, OS: "linux", Arch: "amd64", StartedAt: testTime},
		Names: pki.MustParseNames("www.example.com"),
	}
}

func wireRow(name string, revision uint64, host string, notAfter time.Time) wire.Row {
	return wire.Row{Name: name, Revision: revision, Data: fmt.Appendf(nil,
		`{"names":[%q],"state":"valid","issuer":"corp","serial":"%02x","fingerprint":"fp-%s-%d","not_after":%q}`,
		host, revision, name, revision, notAfter.Format(time.RFC3339))}
}

func row(t testingT, w wire.Row) fleet.Row {
	t.Helper()
	r, err := fleet.NewRow(w)
	require.NoError(t, err)
	return r
}
