package desired

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

// world is a state with assignments, without agents: those are made as needed.
type world struct {
	t     testing.TB
	state *fleet.State
}

func newWorld(t testing.TB) *world {
	state, err := fleet.New()
	require.NoError(t, err)
	return &world{t, state}
}

func (w *world) do(payloads ...fleet.Payload) {
	w.t.Helper()
	var commands []fleet.Command
	for _, payload := range payloads {
		command, err := fleet.NewCommand(time.Unix(1, 0), payload)
		require.NoError(w.t, err)
		commands = append(commands, command)
	}
	entry, err := fleet.EncodeEntry(commands)
	require.NoError(w.t, err)
	results, _, err := w.state.Apply(w.state.Index()+1, entry)
	require.NoError(w.t, err)
	for _, result := range results {
		require.NoError(w.t, result.Err())
	}
}

func assignment(name, selector, hostname string) fleet.PutAssignment {
	return fleet.PutAssignment{Name: name, Selector: selector, Template: fmt.Appendf(nil, `{"names":[%q]}`, hostname)}
}

func host(id string, labels map[string]string) *fleet.Agent {
	agent := &fleet.Agent{ID: id, State: fleet.AgentActive, Labels: labels, NamePatterns: []string{"**.example.com"}}
	agent.Host.Hostname = id + ".example.com"
	return agent
}

func TestPlan(t *testing.T) {
	w := newWorld(t)
	w.do(assignment("all", "*", "${hostname}"), assignment("web", "role=web", "www.${label.site}.example.com"),
		assignment("foreign", "role=web", "www.example.org"), assignment("db", "role=db", "db.example.com"))
	var p Planner
	web := host("web1", map[string]string{"role": "web", "site": "north"})
	items := p.Items(w.state.View(), web)
	require.Len(t, items, 3)
	assert.Equal(t, "all", items[0].Name)
	assert.Equal(t, []string{"web1.example.com"}, items[0].Names.Strings())
	assert.Equal(t, "foreign", items[1].Name)
	assert.Contains(t, items[1].Refusal, "enrolment does not allow this")
	assert.Contains(t, items[1].Refusal, "www.example.org")
	assert.JSONEq(t, `{"names":["www.north.example.com"]}`, string(items[2].Certificate))

	desired := p.Desired(w.state.View(), web)
	require.Nil(t, desired.Validate())
	require.Len(t, desired.Assignments, 2, "what is refused is not sent")
	assert.Equal(t, desired.Digest, p.Digest(w.state.View(), web))
	assert.Equal(t, desired.Digest, p.Digest(w.state.View(), web))
	var other Planner
	assert.Equal(t, desired.Digest, other.Digest(w.state.View(), web), "equal on every node")

	// What is missing is said, and a host without an enrolment's names gets nothing.
	bare := host("web2", map[string]string{"role": "web"})
	assert.Contains(t, p.Items(w.state.View(), bare)[2].Refusal, `no label "site"`)
	bare.NamePatterns = nil
	assert.Contains(t, p.Items(w.state.View(), bare)[0].Refusal, "allows no names")
	assert.Equal(t, EmptyDigest, p.Digest(w.state.View(), bare))
}

func TestDigestFollowsWhatChanges(t *testing.T) {
	w := newWorld(t)
	var p Planner
	web, db := host("web1", map[string]string{"role": "web"}), host("db1", map[string]string{"role": "db"})
	assert.Equal(t, EmptyDigest, p.Digest(w.state.View(), web))
	digest := func(agent *fleet.Agent) string {
		t.Helper()
		d := p.Digest(w.state.View(), agent)
		assert.Equal(t, p.Desired(w.state.View(), agent).Digest, d)
		return d
	}
	w.do(assignment("web", "role=web", "${hostname}"))
	first := digest(web)
	assert.NotEqual(t, EmptyDigest, first)
	assert.Equal(t, EmptyDigest, digest(db))
	w.do(assignment("other", "role=db", "${hostname}"))
	assert.Equal(t, first, digest(web), "another's assignment is no change")
	web.Host.Hostname = "renamed.example.com"
	assert.NotEqual(t, first, digest(web))
	web.Host.Hostname = "web1.example.com"
	assert.Equal(t, first, digest(web))
	w.do(assignment("web", "role in (web,db)", "${hostname}"))
	assert.NotEqual(t, first, digest(web), "its revision is part of it")
	require.Len(t, p.Desired(w.state.View(), db).Assignments, 2)
	w.do(fleet.DeleteAssignment{Name: "web"})
	assert.Equal(t, EmptyDigest, digest(web))
}

func TestAnAgentTakesOnlySoMany(t *testing.T) {
	w := newWorld(t)
	var payloads []fleet.Payload
	for i := range 1003 {
		payloads = append(payloads, assignment(fmt.Sprintf("a%04d", i), "*", "${hostname}"))
	}
	w.do(payloads...)
	var p Planner
	agent := host("web1", nil)
	desired := p.Desired(w.state.View(), agent)
	require.Nil(t, desired.Validate())
	assert.Len(t, desired.Assignments, 1000)
	items := p.Items(w.state.View(), agent)
	require.Len(t, items, 1003)
	assert.Contains(t, items[1002].Refusal, "more assignments than are sent")
}

// A stored assignment that this version cannot read is refused where it matters.
func TestABrokenAssignmentIsSaid(t *testing.T) {
	w := newWorld(t)
	w.do(fleet.PutAssignment{Name: "odd", Selector: "role=web", Template: []byte(`{"names":["a.example.com"],"colour":"red"}`)})
	var p Planner
	items := p.Items(w.state.View(), host("web1", map[string]string{"role": "web"}))
	require.Len(t, items, 1)
	assert.Contains(t, items[0].Refusal, "colour")
	assert.Empty(t, p.Items(w.state.View(), host("db1", nil)))
}

func fleetOf(n, sets int) []*fleet.Agent {
	agents := make([]*fleet.Agent, n)
	for i := range agents {
		agents[i] = host(fmt.Sprintf("h%06d", i), map[string]string{"env": "prod", "role": fmt.Sprintf("r%d", i%sets), "site": fmt.Sprintf("s%d", i%7)})
	}
	return agents
}

// 1,000 assignments, 100,000 agents, three assignments for each.
func benchmarkWorld(b *testing.B) (*world, []*fleet.Agent) {
	w := newWorld(b)
	var payloads []fleet.Payload
	for i := range 1000 {
		payloads = append(payloads, assignment(fmt.Sprintf("a%04d", i), fmt.Sprintf("env=prod,role in (r%d)", i%333), "${hostname}"))
	}
	w.do(payloads...)
	return w, fleetOf(100_000, 333)
}

// BenchmarkDigest is what a sync costs while nothing changes.
func BenchmarkDigest(b *testing.B) {
	w, agents := benchmarkWorld(b)
	var p Planner
	view := w.state.View()
	for _, agent := range agents {
		p.Digest(view, agent)
	}
	i := 0
	for b.Loop() {
		p.Digest(view, agents[i%len(agents)])
		i++
	}
}

// BenchmarkChange is what a change of one assignment of 1,000 costs for all of
// 100,000 agents together, of which 300 have it.
func BenchmarkChange(b *testing.B) {
	w, agents := benchmarkWorld(b)
	var p Planner
	for _, agent := range agents {
		p.Digest(w.state.View(), agent)
	}
	n := 0
	for b.Loop() {
		n++
		w.do(assignment("a0005", fmt.Sprintf("env=prod,role in (r5),!x%d", n), "${hostname}"))
		view := w.state.View()
		for _, agent := range agents {
			p.Digest(view, agent)
		}
	}
}
