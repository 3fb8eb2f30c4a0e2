package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Random things happen to a cluster and time goes on, while random questions are put to
// random nodes of it, one of which has just been restored from another's snapshot, one
// keeps no answers, and one has heard of every agent this very moment. Whatever
// happens: all nodes give one question the same answer and tag, to the octet; a tag
// that comes again belongs to the same answer; and who is told that an answer is
// unchanged has the one that is given to everybody else.
func TestAnEntityTagBelongsToOneAnswer(t *testing.T) {
	cluster := newTagCluster(t)
	rapid.Check(t, func(t *rapid.T) {
		m := newTagModel(t, cluster)
		t.Repeat(map[string]func(*rapid.T){
			"":        m.ask,
			"change":  m.change,
			"change2": m.change, // more of it than of time
			"time":    m.pass,
			"restore": m.restore,
		})
	})
}

// replica is a node that has applied the log and answers.
type replica struct {
	api.Node
	state   *fleet.State
	handler http.Handler
}

func (r *replica) State() *fleet.State      { return r.state }
func (r *replica) Ready() cluster.Readiness { return cluster.Readiness{Member: true} }
func (*replica) ID() string                 { return "node" }
func (*replica) Leader() (id, addr string)  { return "node", "" }

// tagCluster is the nodes, which are made once and take part in one life after the
// other. What they keep of an earlier one must not do harm in the next.
type tagCluster struct {
	now   time.Time
	lives int
	// apart lives have no log index in common, as in one cluster.
	apart bool
	nodes []*replica
	token apitoken.Token
	// scoped is limited to the hosts of env=prod.
	scoped apitoken.Token
}

type tagModel struct {
	*tagCluster
	index  uint64
	asking apitoken.Token
	// bodies of the tags that were given, and tags by the question.
	bodies map[string]string
	tags   map[string][]string
	// agents and what they have sent.
	agents    []string
	sequences map[string]uint64
	revisions map[string]uint64
	made      int
}

func newTagCluster(t *testing.T) *tagCluster {
	c := &tagCluster{token: apitoken.New(), scoped: apitoken.New()}
	for i := range 3 {
		c.nodes = append(c.nodes, c.node(t, i))
	}
	return c
}

func newTagModel(t *rapid.T, c *tagCluster) *tagModel {
	m := &tagModel{tagCluster: c, bodies: map[string]string{}, tags: map[string][]string{}, sequences: map[string]uint64{}, revisions: map[string]uint64{}}
	if c.lives++; c.apart {
		m.index = uint64(c.lives) * 1000
	}
	c.now = time.Date(2031, 5, 6, 7, 8, 9, c.lives, time.UTC)
	for _, node := range c.nodes {
		node.state = empty(t)
	}
	m.do(t, fleet.InitClusterCA{Authority: fleet.ClusterAuthority{Certificate: []byte("root"), SealedKey: []byte("key")}},
		fleet.CreateAPIToken{ID: m.token.ID, Name: "all", Hash: m.token.Hash(), Role: fleet.RoleAdmin},
		fleet.CreateAPIToken{ID: m.scoped.ID, Name: "some", Hash: m.scoped.Hash(), Role: fleet.RoleAdmin, Scope: fleet.Scope{"env": {"prod"}}},
		fleet.CreateEnrollmentToken{ID: "other", NamePatterns: []string{"**.example.com"}, Labels: map[string]string{"env": "qa"}, ExpiresAt: m.now.Add(1000 * day)},
		fleet.CreateEnrollmentToken{ID: "token", NamePatterns: []string{"**.example.com"}, Labels: map[string]string{"env": "prod"}, ExpiresAt: m.now.Add(1000 * day)})
	_, ok := m.nodes[0].state.View().ClusterCA()
	require.True(t, ok, "what tells this life from others")
	return m
}

func empty(t require.TestingT) *fleet.State {
	state, err := fleet.New()
	require.NoError(t, err)
	return state
}

// everybody has been heard of just now.
type everybody struct{ now func() time.Time }

func (e everybody) LastSeen(string) (time.Time, bool) { return e.now(), true }

func (c *tagCluster) node(t *testing.T, i int) *replica {
	node := new(replica)
	config := api.Config{
		Node: node, Journal: struct{ api.Journal }{}, Cluster: struct{ api.Cluster }{}, Departing: struct{ api.Departing }{},
		Authority: new(ca.CA), Pause: func() time.Duration { return time.Minute }, EnrollmentURL: "https://pki.example.com",
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return c.now },
	}
	switch i {
	case 0:
		config.Presence = everybody{config.Now}
	case 1:
		config.Pages = -1
	}
	var err error
	node.handler, err = api.New(config)
	require.NoError(t, err)
	return node
}

func (m *tagModel) do(t *rapid.T, payloads ...fleet.Payload) {
	commands := make([]fleet.Command, 0, len(payloads))
	for _, payload := range payloads {
		command, err := fleet.NewCommand(m.now, payload)
		require.NoError(t, err)
		commands = append(commands, command)
	}
	entry, err := fleet.EncodeEntry(commands)
	require.NoError(t, err)
	m.index++
	for _, node := range m.nodes {
		_, _, err := node.state.Apply(m.index, entry)
		require.NoError(t, err)
	}
}

func (m *tagModel) pass(t *rapid.T) {
	m.now = m.now.Add(rapid.SampledFrom([]time.Duration{
		1, time.Second, 59 * time.Second, time.Minute, 3*time.Minute + 10*time.Second, time.Hour, day, 10 * day,
	}).Draw(t, "time"))
}

// restore begins a node anew with what another one knows.
func (m *tagModel) restore(t *rapid.T) {
	var snapshot bytes.Buffer
	require.NoError(t, m.nodes[0].state.Snapshot().Persist(&snapshot))
	m.nodes[2].state = empty(t)
	require.NoError(t, m.nodes[2].state.Restore(&snapshot))
}

func (m *tagModel) change(t *rapid.T) {
	m.made++
	id := fmt.Sprint("x", m.made)
	agent := ""
	if len(m.agents) > 0 {
		agent = rapid.SampledFrom(m.agents).Draw(t, "agent")
	}
	kinds := []string{"enrol"}
	if agent != "" {
		kinds = []string{"enrol", "report", "report", "heartbeat", "heartbeat", "order", "brokered order", "retire", "api token", "rotation", "join token", "enrolment token", "assignment", "command", "campaign"}
	}
	switch kind := rapid.SampledFrom(kinds).Draw(t, "change"); kind {
	case "enrol":
		m.agents = append(m.agents, id)
		m.do(t, fleet.EnrollAgent{TokenID: pickOne(t, "token", "other"), AgentID: id, Host: wire.HostReport{Hostname: id + ".example.com"},
			Identity: fleet.Identity{Fingerprint: "f" + id, PublicKeyFingerprint: "k" + id, Serial: "0a", NotAfter: m.now.Add(day)}})
	case "report":
		m.report(t, agent)
	case "heartbeat":
		m.do(t, fleet.TouchAgents{Seen: []fleet.Seen{{Agent: agent, At: m.now}}})
	case "order":
		m.sequences[agent]++
		m.do(t, fleet.SyncAgent{AgentID: agent, BootID: "boot", Sequence: m.sequences[agent], BaseRevision: m.revisions[agent], Revision: m.revisions[agent],
			HeadRevision: m.revisions[agent], Orders: []fleet.OrderPlacement{{ID: id, Certificate: "www0", Issuer: "builtin", CSR: []byte(id), Names: pki.MustParseNames("www.example.com")}}},
			fleet.CompleteOrder{Agent: agent, ID: id, ChainPEM: "chain", Serial: "s0", Fingerprint: "f0", NotAfter: m.now.Add(day)},
			fleet.RevokeCertificate{Serial: "s0", Reason: 4})
	case "brokered order":
		m.sequences[agent]++
		m.do(t, fleet.SyncAgent{AgentID: agent, BootID: "boot", Sequence: m.sequences[agent], BaseRevision: m.revisions[agent], Revision: m.revisions[agent],
			HeadRevision: m.revisions[agent], Orders: []fleet.OrderPlacement{{ID: id, Certificate: "www1", Issuer: "digicert", CSR: []byte(id), Names: pki.MustParseNames("www.example.com")}}})
	case "retire":
		m.do(t, fleet.RetireAgent{AgentID: agent})
	case "api token":
		p := fleet.CreateAPIToken{ID: id, Name: id, Hash: [32]byte{byte(m.made), byte(m.made >> 8)}, Role: fleet.RoleViewer, ExpiresAt: m.now.Add(m.soon(t))}
		if rapid.Bool().Draw(t, "scoped") {
			p.Scope = fleet.Scope{"env": {pickOne(t, "prod", "qa")}}
		}
		m.do(t, p)
	case "rotation":
		m.do(t, fleet.RotateAPIToken{ID: pickOne(t, m.lastToken(), "none"), Hash: [32]byte{byte(m.made), byte(m.made >> 8), 1}, Until: m.now.Add(m.soon(t))})
	case "join token":
		m.do(t, fleet.CreateJoinToken{ID: id, ExpiresAt: m.now.Add(m.soon(t))})
	case "enrolment token":
		m.do(t, fleet.CreateEnrollmentToken{ID: id, Labels: map[string]string{"env": pickOne(t, "prod", "qa")}, ExpiresAt: m.now.Add(m.soon(t))})
	case "assignment":
		m.do(t, fleet.PutAssignment{Name: pickOne(t, "role", "other"), Selector: pickOne(t, "env=prod", "*", "env=qa"), Template: fmt.Appendf(nil, `{"names":["%s.example.com"]}`, id)})
	case "command":
		m.do(t, fleet.CommandAgent{Agent: agent, ID: id, Kind: wire.CommandRenew, Certificate: "www0"})
	case "campaign":
		m.do(t, fleet.BeginCampaign{ID: fmt.Sprintf("campaign%08d", m.made), Selector: pickOne(t, "*", "env=prod", "env=qa"), Over: m.soon(t), Targets: 1})
	}
}

func (*tagModel) soon(t *rapid.T) time.Duration {
	return rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour, day, 20 * day}).Draw(t, "soon")
}

func (m *tagModel) report(t *rapid.T, agent string) {
	m.sequences[agent]++
	m.revisions[agent]++
	summary := apitest.Valid(m.now, m.soon(t), "www.example.com")
	summary.RenewAt, summary.Serial = m.now.Add(m.soon(t)), "s0"
	if rapid.Bool().Draw(t, "safe") {
		summary.SafeUntil = m.now.Add(m.soon(t))
	}
	summary.State = rapid.SampledFrom([]wire.State{wire.StateValid, wire.StateRenewing, wire.StateFailed}).Draw(t, "state")
	data, err := json.Marshal(summary)
	require.NoError(t, err)
	row, err := fleet.NewRow(wire.Row{Name: fmt.Sprint("www", rapid.IntRange(0, 2).Draw(t, "row")), Revision: m.revisions[agent], Data: data})
	require.NoError(t, err)
	host := wire.HostReport{Hostname: agent + ".example.com", NotSafe: rapid.IntRange(0, 1).Draw(t, "not safe")}
	m.do(t, fleet.SyncAgent{AgentID: agent, BootID: "boot", Sequence: m.sequences[agent], Host: &host, BaseRevision: m.revisions[agent] - 1,
		Revision: m.revisions[agent], HeadRevision: m.revisions[agent], Rows: []fleet.Row{row}})
}

// questions that have tags, but for those about the journal, which is each node's own.
func (m *tagModel) question(t *rapid.T) string {
	agent := "none"
	if len(m.agents) > 0 {
		agent = rapid.SampledFrom(m.agents).Draw(t, "agent asked about")
	}
	path := rapid.SampledFrom([]string{
		"/api/v1/certificates", "/api/v1/certificates?health=ok,renewing", "/api/v1/certificates?health=expired",
		"/api/v1/certificates?health=unknown,at_risk,revoked", "/api/v1/certificates?limit=2", "/api/v1/certificates?label=env%3Dprod",
		"/api/v1/certificates?agent=" + agent, "/api/v1/certificates?expires_before=" + url.QueryEscape("2031-06-01T00:00:00Z"),
		"/api/v1/agents", "/api/v1/agents?connection=connected", "/api/v1/agents?connection=cut_off", "/api/v1/agents?sort=safe_until",
		"/api/v1/agents/" + agent + "/commands", "/api/v1/assignments", "/api/v1/assignments?hosts=true", "/api/v1/assignments/role",
		"/api/v1/renewals", "/api/v1/jobs", "/api/v1/jobs?ended=true&limit=2",
		"/api/v1/reports/sync", "/api/v1/reports/sync?limit=2", "/api/v1/reports/sync?connection=cut_off", "/api/v1/reports/sync?risk=expired,expiring&label=env%3Dprod", "/api/v1/reports/sync?format=csv", "/api/v1/orders", "/api/v1/tokens", "/api/v1/tokens?state=expired", "/api/v1/enrollment-tokens?state=usable", "/api/v1/cluster/join-tokens",
	}).Draw(t, "question")
	return path
}

func pickOne(t *rapid.T, of ...string) string { return rapid.SampledFrom(of).Draw(t, "one") }

// lastToken is the id of a token that a change made, if one did.
func (m *tagModel) lastToken() string {
	tokens := m.nodes[0].state.View().APITokens()
	for _, token := range tokens {
		if token.ID != m.token.ID && token.ID != m.scoped.ID {
			return token.ID
		}
	}
	return "none"
}

func (m *tagModel) send(node *replica, path, tag string) *httptest.ResponseRecorder {
	return m.sendAs(node, m.asking, path, tag)
}

func (*tagModel) sendAs(node *replica, token apitoken.Token, path, tag string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodGet, path, nil)
	request.Header.Set("Authorization", "Bearer "+token.Reveal())
	if tag != "" {
		request.Header.Set("If-None-Match", tag)
	}
	answer := httptest.NewRecorder()
	node.handler.ServeHTTP(answer, request)
	return answer
}

func (m *tagModel) ask(t *rapid.T) {
	path := m.question(t)
	m.asking = rapid.SampledFrom([]apitoken.Token{m.token, m.scoped}).Draw(t, "asking")
	var whole *httptest.ResponseRecorder
	for i, node := range m.nodes {
		answer := m.send(node, path, "")
		if i == 0 {
			whole = answer
		}
		require.Equal(t, whole.Code, answer.Code, "%s", answer.Body)
		require.Equal(t, whole.Header().Get("ETag"), answer.Header().Get("ETag"), "the tag of %s at node %d", path, i)
		if whole.Code == http.StatusOK {
			require.Equal(t, whole.Body.String(), answer.Body.String(), "%s at node %d", path, i)
		}
	}
	tag := whole.Header().Get("ETag")
	if whole.Code != http.StatusOK {
		require.Empty(t, tag)
		return
	}
	require.NotEmpty(t, tag, path)
	key := path + " " + tag
	if body, known := m.bodies[key]; known {
		require.Equal(t, body, whole.Body.String(), "%s has the tag of before", path)
	} else {
		m.bodies[key] = whole.Body.String()
		m.tags[path] = append(m.tags[path], tag)
	}
	// A client comes back with a tag that it, or somebody with another token, was given
	// at any time.
	held := rapid.SampledFrom(m.tags[path]).Draw(t, "tag")
	node := rapid.SampledFrom(m.nodes).Draw(t, "node")
	answer := m.send(node, path, held)
	if answer.Code == http.StatusNotModified {
		require.Equal(t, m.bodies[path+" "+held], whole.Body.String(), "%s is not unchanged", path)
		require.Equal(t, held, answer.Header().Get("ETag"))
	} else {
		require.Equal(t, http.StatusOK, answer.Code)
		require.NotEqual(t, tag, held)
	}
	require.Equal(t, http.StatusNotModified, m.send(node, path, tag).Code, path)
}
