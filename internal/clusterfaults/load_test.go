package clusterfaults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/internal/clusterfaults/linear"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// attempt bounds one question to one node, opPatience all that belong to an
	// operation. A client whose patience ends does not know the outcome.
	attempt    = 2 * electionTimeout
	opPatience = 12 * electionTimeout
	// perObject is how many operations an object meets before the next one takes
	// its place: the check of a history takes longer the more there are.
	perObject = 40
)

// load is clients at work.
type load struct {
	bench   *bench
	history *linear.History
	name    string // begins the names of all objects
	clients []*client

	operations atomic.Int64
	acked      atomic.Int64 // changes
	stop       context.CancelFunc
	done       sync.WaitGroup
}

// startLoad sets clients to work. Each is also an agent with orders of its own.
func startLoad(b *bench, clients int, seed uint64) *load {
	b.t.Helper()
	b.loads++
	l := &load{bench: b, history: linear.NewHistory(), name: fmt.Sprintf("l%d-", b.loads)}
	token := newToken(l.name+"agents", 0)
	require.True(b.t, b.propose(token).OK())
	b.ledger.once(fleet.KindEnrollmentTokenCreated, token.ID)
	for i := range clients {
		c := &client{load: l, Client: l.history.Client(), random: rand.New(rand.NewPCG(seed, uint64(100+i))), agent: fmt.Sprintf("%sagent%d", l.name, i)}
		require.True(b.t, b.propose(enrolment(token.ID, c.agent, c.agent)).OK())
		b.ledger.once(fleet.KindAgentEnrolled, c.agent)
		l.clients = append(l.clients, c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	for _, c := range l.clients {
		l.done.Go(func() { c.work(ctx) })
	}
	return l
}

// end waits until all operations have ended.
func (l *load) end() {
	l.stop()
	l.done.Wait()
}

// progress waits until clients have been told of n more changes.
func (l *load) progress(n int64) {
	l.bench.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	goal := l.acked.Load() + n
	l.bench.eventually(ctx, "clients get on", func() bool { return l.acked.Load() >= goal })
}

// propose has a cluster without faults store something.
func (b *bench) propose(payload fleet.Payload) fleet.Result {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	command, err := fleet.NewCommand(time.Now(), payload)
	require.NoError(b.t, err)
	for {
		results, err := b.leader().node.Load().Propose(ctx, command)
		if err == nil {
			return results[0]
		}
		require.NoError(b.t, ctx.Err(), "%v", err)
	}
}

// client does one thing after the other.
type client struct {
	load   *load
	random *rand.Rand
	*linear.Client
	agent    string
	sequence uint64
	serial   int
	home     int // the member that it asks
}

func (c *client) work(ctx context.Context) {
	for ctx.Err() == nil {
		c.load.operations.Add(1)
		switch pick := c.random.IntN(100); {
		case pick < 35:
			c.workOnToken()
		case pick < 70 && c.load.bench.form.orders():
			c.workOnOrder()
		default:
			c.workOnAssignment()
		}
		pause(ctx, time.Duration(c.random.IntN(15))*time.Millisecond)
	}
}

// object is the one of a kind that is in use now; now and then the one before.
func (c *client) object(kind string) string {
	n := c.load.operations.Load() * 35 / 100 / perObject
	if n > 0 && c.random.IntN(10) == 0 {
		n--
	}
	return fmt.Sprintf("%s%s%d", c.load.name, kind, n)
}

func (c *client) workOnToken() {
	in := linear.Input{Object: c.object("token")}
	switch c.random.IntN(6) {
	case 0:
		in.Kind, in.Limit = linear.CreateToken, 7
		c.change(in, newToken(in.Object, 7), func(r fleet.Result) linear.Output {
			return c.outcome(r, func() { c.load.bench.ledger.once(fleet.KindEnrollmentTokenCreated, in.Object) })
		}, func() { c.load.bench.ledger.perhapsOnce(fleet.KindEnrollmentTokenCreated, in.Object) })
	case 1, 2, 3:
		c.serial++
		key := fmt.Sprintf("%s-k%d", c.agent, c.serial-c.random.IntN(2))
		agent := fmt.Sprintf("%s-%s-%d", in.Object, c.agent, c.serial)
		in.Kind, in.Value = linear.UseToken, in.Object+"/"+key
		c.change(in, enrolment(in.Object, agent, in.Value), func(r fleet.Result) linear.Output {
			var enrolled fleet.Enrollment
			if r.OK() && r.Decode(&enrolled) == nil && !enrolled.Repeated {
				c.load.bench.ledger.once(fleet.KindAgentEnrolled, agent)
			}
			return linear.Output{Code: r.Code, Repeated: enrolled.Repeated}
		}, func() { c.load.bench.ledger.perhapsOnce(fleet.KindAgentEnrolled, agent) })
	case 4:
		if c.random.IntN(4) > 0 {
			c.read(linear.Input{Kind: linear.ReadToken, Object: in.Object})
			return
		}
		in.Kind = linear.RevokeToken
		c.change(in, fleet.RevokeEnrollmentToken{Actor: "local", ID: in.Object}, func(r fleet.Result) linear.Output {
			return c.outcome(r, func() { c.load.bench.ledger.once(fleet.KindEnrollmentTokenRevoked, in.Object) })
		}, func() { c.load.bench.ledger.perhapsOnce(fleet.KindEnrollmentTokenRevoked, in.Object) })
	default:
		c.read(linear.Input{Kind: linear.ReadToken, Object: in.Object})
	}
}

func (c *client) workOnOrder() {
	id := c.object("order")
	in := linear.Input{Object: c.agent + "/" + id}
	pick := c.random.IntN(6)
	if pick >= 3 { // what anybody may do, with anybody's
		agent := c.load.clients[c.random.IntN(len(c.load.clients))].agent
		in.Object = agent + "/" + id
		if pick == 5 {
			c.read(linear.Input{Kind: linear.ReadOrder, Object: in.Object})
			return
		}
		c.serial++
		in.Kind, in.Value = linear.CompleteOrder, fmt.Sprintf("%s%d", c.agent, c.serial)
		c.change(in, fleet.CompleteOrder{
			Agent: agent, ID: id, ChainPEM: "a chain", Serial: in.Value, Fingerprint: in.Value, NotAfter: time.Now().Add(240 * time.Hour),
		}, func(r fleet.Result) linear.Output {
			out := linear.Output{Code: r.Code}
			var order fleet.OrderOutcome
			if r.OK() && r.Decode(&order) == nil {
				out.State = string(order.State)
				c.load.bench.ledger.once(fleet.KindOrderIssued, in.Object)
			}
			return out
		}, func() { c.load.bench.ledger.perhapsOnce(fleet.KindOrderIssued, in.Object) })
		return
	}
	c.sequence++
	sync := fleet.SyncAgent{AgentID: c.agent, BootID: "boot", Sequence: c.sequence}
	if pick == 0 {
		in.Kind = linear.CollectOrder
		sync.Collected = []string{id}
		c.change(in, sync, func(r fleet.Result) linear.Output { return linear.Output{Code: r.Code} }, func() {})
		return
	}
	in.Kind = linear.PlaceOrder
	sync.Orders = []fleet.OrderPlacement{{ID: id, Certificate: "web", Issuer: "builtin", CSR: []byte(in.Object), Names: pki.MustParseNames("www.example.com")}}
	c.change(in, sync, func(r fleet.Result) linear.Output {
		out := linear.Output{Code: r.Code}
		var outcome fleet.SyncOutcome
		if r.OK() && r.Decode(&outcome) == nil && len(outcome.Orders) == 1 {
			out.State = string(outcome.Orders[0].State)
			c.load.bench.ledger.once(fleet.KindOrderRequested, in.Object)
		}
		return out
	}, func() { c.load.bench.ledger.perhapsOnce(fleet.KindOrderRequested, in.Object) })
}

func (c *client) workOnAssignment() {
	in := linear.Input{Object: c.object("assignment")}
	pick := c.random.IntN(10)
	if pick < 4 {
		c.read(linear.Input{Kind: linear.ReadAssignment, Object: in.Object})
		return
	}
	if c.random.IntN(3) > 0 { // a change of what was seen
		seen, ok := c.read(linear.Input{Kind: linear.ReadAssignment, Object: in.Object})
		if !ok {
			return
		}
		in.IfRevision, in.Previous = true, seen.Number
	}
	var previous *uint64
	if in.IfRevision {
		previous = &in.Previous
	}
	if pick == 4 {
		in.Kind = linear.DeleteAssignment
		c.change(in, fleet.DeleteAssignment{Actor: "local", Name: in.Object, Previous: previous}, func(r fleet.Result) linear.Output {
			return c.outcome(r, func() { c.load.bench.ledger.counted(fleet.KindAssignmentDeleted, in.Object) })
		}, func() { c.load.bench.ledger.perhapsCounted(fleet.KindAssignmentDeleted, in.Object) })
		return
	}
	c.serial++
	in.Kind, in.Value = linear.PutAssignment, fmt.Sprintf("%s=%d", c.agent, c.serial-c.random.IntN(2))
	c.change(in, fleet.PutAssignment{Actor: "local", Name: in.Object, Selector: in.Value, Template: []byte("{}"), Previous: previous}, func(r fleet.Result) linear.Output {
		out := linear.Output{Code: r.Code}
		var put fleet.PutOutcome
		if r.OK() && r.Decode(&put) == nil {
			out.Number = put.Assignment.Revision
			if put.Changed {
				c.load.bench.ledger.counted(fleet.KindAssignmentChanged, in.Object+" "+in.Value)
			}
		}
		return out
	}, func() { c.load.bench.ledger.perhapsCounted(fleet.KindAssignmentChanged, in.Object+" "+in.Value) })
}

func (c *client) outcome(r fleet.Result, done func()) linear.Output {
	if r.OK() {
		done()
	}
	return linear.Output{Code: r.Code}
}

// change proposes a change until some node says what came of it: always the same
// command, whichever node is asked. answered enters what the answer means for
// the facts, perhaps what it means that there is none.
func (c *client) change(in linear.Input, payload fleet.Payload, answered func(fleet.Result) linear.Output, perhaps func()) {
	ctx, cancel := context.WithTimeout(context.Background(), opPatience)
	defer cancel()
	pending := c.Begin(in)
	var command *fleet.Command
	uncertain := false
	for ctx.Err() == nil {
		m := c.load.bench.members[c.home]
		node := m.node.Load()
		if node == nil {
			c.turn(ctx)
			continue
		}
		if command == nil {
			made, err := fleet.NewCommand(m.now(), payload)
			if err != nil {
				panic(err)
			}
			command = &made
		}
		try, end := context.WithTimeout(ctx, attempt)
		results, err := node.Propose(try, *command)
		end()
		if err == nil {
			out := answered(results[0])
			pending.Done(out)
			c.load.acked.Add(1)
			return
		}
		var unknown *cluster.UnknownOutcomeError
		uncertain = uncertain || errors.As(err, &unknown)
		c.turn(ctx)
	}
	if uncertain {
		perhaps()
		pending.Unknown()
	} else {
		pending.Refused()
	}
}

// turn goes to another node.
func (c *client) turn(ctx context.Context) {
	c.home = (c.home + 1 + c.random.IntN(2)) % len(c.load.bench.members)
	pause(ctx, time.Duration(5+c.random.IntN(20))*time.Millisecond)
}

// read reads consistently, at any node.
func (c *client) read(in linear.Input) (linear.Output, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), opPatience)
	defer cancel()
	pending := c.Begin(in)
	for ctx.Err() == nil {
		if node := c.load.bench.members[c.home].node.Load(); node != nil {
			try, end := context.WithTimeout(ctx, attempt)
			_, err := node.ConsistentIndex(try)
			end()
			if err == nil {
				out := look(node.State().View(), in)
				pending.Done(out)
				if c.random.IntN(5) == 0 {
					c.home = c.random.IntN(len(c.load.bench.members))
				}
				return out, true
			}
		}
		c.turn(ctx)
	}
	pending.Refused()
	return linear.Output{}, false
}

// look reads what a node has stored.
func look(v *fleet.View, in linear.Input) linear.Output {
	switch in.Kind {
	case linear.ReadToken:
		token, ok := v.EnrollmentToken(in.Object)
		if !ok {
			return linear.Output{}
		}
		out := linear.Output{Exists: true, Number: uint64(token.Uses)}
		if !token.RevokedAt.IsZero() {
			out.State = "revoked"
		}
		return out
	case linear.ReadOrder:
		agent, id := orderName(in.Object)
		order, ok := v.Order(agent, id)
		if !ok {
			return linear.Output{}
		}
		return linear.Output{Exists: true, State: string(order.State), Value: order.Serial}
	default:
		assignment, ok := v.Assignment(in.Object)
		if !ok {
			return linear.Output{}
		}
		return linear.Output{Exists: true, Value: assignment.Selector, Number: assignment.Revision}
	}
}

// readAll has each node say what became of every object, when all is over.
func (l *load) readAll() {
	n := l.operations.Load()*35/100/perObject + 1
	var all []linear.Input
	for i := range n + 1 {
		all = append(all,
			linear.Input{Kind: linear.ReadToken, Object: fmt.Sprintf("%stoken%d", l.name, i)},
			linear.Input{Kind: linear.ReadAssignment, Object: fmt.Sprintf("%sassignment%d", l.name, i)})
		for _, c := range l.clients {
			all = append(all, linear.Input{Kind: linear.ReadOrder, Object: fmt.Sprintf("%s/%sorder%d", c.agent, l.name, i)})
		}
	}
	for _, m := range l.bench.members {
		reader, view := l.history.Client(), m.node.Load().State().View()
		for _, in := range slices.Clone(all) {
			pending := reader.Begin(in)
			pending.Done(look(view, in))
		}
	}
}

func newToken(id string, limit uint32) fleet.CreateEnrollmentToken {
	return fleet.CreateEnrollmentToken{
		Actor: "local", ID: id, SecretHash: [32]byte{1, 2, 3}, NamePatterns: []string{"**.example.com"}, MaxUses: limit,
		ExpiresAt: time.Now().Add(240 * time.Hour), // whatever the clocks do
	}
}

func enrolment(token, agent, key string) fleet.EnrollAgent {
	return fleet.EnrollAgent{
		TokenID: token, SecretHash: [32]byte{1, 2, 3}, AgentID: agent, Host: wire.HostReport{Hostname: agent},
		Identity: fleet.Identity{
			Certificate: []byte("certificate of " + agent), Fingerprint: "f-" + agent, PublicKeyFingerprint: "k-" + key,
			Serial: "01", NotAfter: time.Now().Add(240 * time.Hour),
		},
	}
}
