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
	orders  bool // they place and complete orders

	// answers is read-locked while an answer comes in and is written down.
	answers sync.RWMutex

	operations atomic.Int64
	acked      atomic.Int64 // changes
	stop       context.CancelFunc
	done       sync.WaitGroup
}

// startLoad sets clients to work. Each is also an agent, with orders of its own if
// nobody else completes them.
func startLoad(b *bench, clients int, seed uint64, orders bool) *load {
	b.t.Helper()
	b.loads++
	l := &load{bench: b, history: linear.NewHistory(), name: fmt.Sprintf("l%d-", b.loads), orders: orders && b.form.orders()}
	token := newToken(l.name+"agents", 0)
	b.propose(token, b.ledger.once(fleet.KindEnrollmentTokenCreated, token.ID))
	for i := range clients {
		c := &client{load: l, Client: l.history.Client(), random: rand.New(rand.NewPCG(seed, uint64(100+i))), agent: fmt.Sprintf("%sagent%d", l.name, i)}
		b.propose(enrolment(token.ID, c.agent, c.agent), b.ledger.once(fleet.KindAgentEnrolled, c.agent))
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
func (b *bench) propose(payload fleet.Payload, claim *claim) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	after := b.applied()
	command, err := fleet.NewCommand(time.Now(), payload)
	require.NoError(b.t, err)
	for {
		node := b.leader().node.Load()
		results, err := node.Propose(ctx, command)
		if err == nil {
			require.NoError(b.t, results[0].Err())
			claim.told(linear.Place{Command: command.ID, After: after, Upto: b.at(node.AppliedIndex())})
			return
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
		case pick < 70 && c.load.orders:
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
	ledger := c.load.bench.ledger
	switch c.random.IntN(6) {
	case 0:
		in.Kind, in.Limit = linear.CreateToken, 7
		c.change(in, newToken(in.Object, 7), ledger.once(fleet.KindEnrollmentTokenCreated, in.Object), accepted)
	case 1, 2, 3:
		c.serial++
		key := fmt.Sprintf("%s-k%d", c.agent, c.serial-c.random.IntN(2))
		agent := fmt.Sprintf("%s-%s-%d", in.Object, c.agent, c.serial)
		in.Kind, in.Value = linear.UseToken, in.Object+"/"+key
		c.change(in, enrolment(in.Object, agent, in.Value), ledger.once(fleet.KindAgentEnrolled, agent), func(r fleet.Result) (linear.Output, bool) {
			var enrolled fleet.Enrollment
			there := r.OK() && r.Decode(&enrolled) == nil && !enrolled.Repeated
			return linear.Output{Code: r.Code, Repeated: enrolled.Repeated}, there
		})
	case 4:
		if c.random.IntN(4) > 0 {
			c.read(linear.Input{Kind: linear.ReadToken, Object: in.Object})
			return
		}
		in.Kind = linear.RevokeToken
		c.change(in, fleet.RevokeEnrollmentToken{Actor: "local", ID: in.Object}, ledger.once(fleet.KindEnrollmentTokenRevoked, in.Object), accepted)
	default:
		c.read(linear.Input{Kind: linear.ReadToken, Object: in.Object})
	}
}

// accepted: the answer is success or not, and the fact is there if it is.
func accepted(r fleet.Result) (linear.Output, bool) { return linear.Output{Code: r.Code}, r.OK() }

func (c *client) workOnOrder() {
	id := c.object("order")
	in := linear.Input{Object: c.agent + "/" + id}
	ledger := c.load.bench.ledger
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
		}, ledger.once(fleet.KindOrderIssued, in.Object), func(r fleet.Result) (linear.Output, bool) {
			var order fleet.OrderOutcome
			there := r.OK() && r.Decode(&order) == nil
			return linear.Output{Code: r.Code, State: string(order.State)}, there
		})
		return
	}
	c.sequence++
	sync := fleet.SyncAgent{AgentID: c.agent, BootID: "boot", Sequence: c.sequence}
	if pick == 0 {
		in.Kind = linear.CollectOrder
		sync.Collected = []string{id}
		c.change(in, sync, nil, accepted)
		return
	}
	in.Kind = linear.PlaceOrder
	sync.Orders = []fleet.OrderPlacement{{ID: id, Certificate: "web", Issuer: "builtin", CSR: []byte(in.Object), Names: pki.MustParseNames("www.example.com")}}
	c.change(in, sync, ledger.once(fleet.KindOrderRequested, in.Object), func(r fleet.Result) (linear.Output, bool) {
		out := linear.Output{Code: r.Code}
		var outcome fleet.SyncOutcome
		there := r.OK() && r.Decode(&outcome) == nil && len(outcome.Orders) == 1
		if there {
			out.State = string(outcome.Orders[0].State)
		}
		return out, there
	})
}

func (c *client) workOnAssignment() {
	in := linear.Input{Object: c.object("assignment")}
	ledger := c.load.bench.ledger
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
		c.change(in, fleet.DeleteAssignment{Actor: "local", Name: in.Object, Previous: previous}, ledger.count(fleet.KindAssignmentDeleted, in.Object), accepted)
		return
	}
	c.serial++
	in.Kind, in.Value = linear.PutAssignment, fmt.Sprintf("%s=%d", c.agent, c.serial-c.random.IntN(2))
	claim := ledger.count(fleet.KindAssignmentChanged, in.Object+" "+in.Value)
	c.change(in, fleet.PutAssignment{Actor: "local", Name: in.Object, Selector: in.Value, Template: []byte("{}"), Previous: previous}, claim, func(r fleet.Result) (linear.Output, bool) {
		out := linear.Output{Code: r.Code}
		var put fleet.PutOutcome
		if r.OK() && r.Decode(&put) == nil {
			out.Number = put.Assignment.Revision
		}
		return out, put.Changed
	})
}

// change proposes a change until some node says what came of it: always the same
// command, whichever node is asked. Some give up at the first node that does not
// say it, and go by what that told them. answered says what the answer is, and whether
// the fact that is claimed is there.
func (c *client) change(in linear.Input, payload fleet.Payload, claim *claim, answered func(fleet.Result) (linear.Output, bool)) {
	ctx, cancel := context.WithTimeout(context.Background(), opPatience)
	defer cancel()
	change := &change{load: c.load, pending: c.Begin(in), claim: claim, answered: answered}
	uncertain := false
	for patient := c.random.IntN(4) > 0; ctx.Err() == nil; {
		m := c.load.bench.members[c.home]
		if change.command.ID == (fleet.ID{}) {
			if m.node.Load() == nil {
				c.turn(ctx)
				continue
			}
			change.make(m.now(), payload)
		}
		err := change.propose(ctx, m)
		if err == nil {
			return
		}
		var unknown *cluster.UnknownOutcomeError
		uncertain = uncertain || errors.As(err, &unknown)
		c.turn(ctx)
		if !patient {
			break
		}
	}
	if uncertain {
		change.pending.Unknown()
	} else {
		claim.refused()
		change.pending.Refused()
	}
}

// change is one that is under way.
type change struct {
	load     *load
	pending  *linear.Pending
	claim    *claim
	answered func(fleet.Result) (linear.Output, bool)

	command fleet.Command
	losses  int64  // that the cluster had suffered when the command was made
	after   uint64 // behind which entry of the log it comes
}

func (c *change) make(now time.Time, payload fleet.Payload) {
	c.losses, c.after = c.load.bench.losses.Load(), c.load.bench.applied()
	command, err := fleet.NewCommand(now, payload)
	if err != nil {
		panic(err)
	}
	c.command = command
}

var errDown = errors.New("the node is down")

// propose is one attempt, at one node. What is answered is written down before a
// loss is.
func (c *change) propose(ctx context.Context, m *member) error {
	c.load.answers.RLock()
	defer c.load.answers.RUnlock()
	node := m.node.Load()
	if node == nil {
		return errDown
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	results, err := node.Propose(ctx, c.command)
	if err != nil {
		return err
	}
	at := linear.Place{Command: c.command.ID, After: c.after, Upto: c.load.bench.at(node.AppliedIndex())}
	if c.losses != c.load.bench.losses.Load() {
		at.After = 0 // of entries that are not there any more
	}
	out, there := c.answered(results[0])
	if there {
		c.claim.told(at)
	} else {
		c.claim.denied(at)
	}
	c.pending.DoneAt(out, at)
	c.load.acked.Add(1)
	return nil
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
		if out, ok := c.readAt(ctx, c.load.bench.members[c.home], pending, in); ok {
			if c.random.IntN(5) == 0 {
				c.home = c.random.IntN(len(c.load.bench.members))
			}
			return out, true
		}
		c.turn(ctx)
	}
	pending.Refused()
	return linear.Output{}, false
}

func (c *client) readAt(ctx context.Context, m *member, pending *linear.Pending, in linear.Input) (out linear.Output, ok bool) {
	c.load.answers.RLock()
	defer c.load.answers.RUnlock()
	node := m.node.Load()
	if node == nil {
		return out, false
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	if _, err := node.ConsistentIndex(ctx); err != nil {
		return out, false
	}
	view := node.State().View()
	seen := c.load.bench.at(view.Index())
	out = look(view, in)
	pending.DoneAt(out, linear.Place{After: seen - 1, Upto: seen})
	return out, true
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
			reader.Begin(in).Done(look(view, in))
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
