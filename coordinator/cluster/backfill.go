package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/jitter"
)

const (
	// chunkPatience is how long a member has for one chunk of facts.
	chunkPatience = 30 * time.Second
	// After each chunk there is a pause of so many times what it took, within these
	// bounds: the facts of before come when nothing better is to be done with the
	// disk and the connections.
	chunkRest              = 3
	minChunkRest           = 10 * time.Millisecond
	maxChunkRest           = 2 * time.Second
	defaultBackfillPace    = 15 * time.Second
	distrust               = time.Hour // of a member that gave nonsense
	defaultFloorPatience   = time.Hour // for members that do not answer and may have more
	maxExtentGaps          = 1000
	maxChunkAnswer         = history.MaxChunk + 64<<10
	concurrentChunksServed = 1
)

// extentAnswer says what a node's journal has.
type extentAnswer struct {
	Through uint64     `cbor:"1,keyasint"`
	Floor   uint64     `cbor:"2,keyasint,omitempty"`
	Gaps    []wireGaps `cbor:"3,keyasint,omitempty"`
}

type wireGaps struct {
	From uint64 `cbor:"1,keyasint"`
	To   uint64 `cbor:"2,keyasint"`
}

// chunkRequest asks for the newest facts of a range of log indexes.
type chunkRequest struct {
	From uint64 `cbor:"1,keyasint"`
	To   uint64 `cbor:"2,keyasint"`
}

// A backfill fetches the facts of log entries that this node never saw, because it
// got a snapshot in their place, from the journals of the other members.
type backfill struct {
	node    *Node
	journal Journal
	wake    chan struct{} // there is a new gap, or another member
	serving chan struct{} // holds the chunks that are being read for others

	// Of the goroutine that runs it:
	said    map[string]string    // what was logged last of each member
	shunned map[string]time.Time // members that gave nonsense, and until when they are not asked
	open    bool                 // a gap was being filled at the last look
	since   time.Time            // when a gap was seen first; zero if there is none
	lost    uint64               // indexes of which it was said that nobody has them
}

func newBackfill(n *Node, journal Journal) *backfill {
	return &backfill{
		node: n, journal: journal, wake: make(chan struct{}, 1), serving: make(chan struct{}, concurrentChunksServed),
		said: map[string]string{}, shunned: map[string]time.Time{},
	}
}

// nudge has it look for gaps at once.
func (b *backfill) nudge() {
	select {
	case b.wake <- struct{}{}:
	default: // it is told already
	}
}

// run fills gaps until ctx is done. A journal without a gap costs one look at each
// beat.
func (b *backfill) run(ctx context.Context) {
	b.nudge()
	jitter.Loop(ctx, b.node.config.BackfillPace, jitter.DefaultSchedulerJitter, b.wake, func(ctx context.Context) {
		if err := b.round(ctx); err != nil && ctx.Err() == nil {
			b.node.log.Error("the journal cannot take facts of other members; it is tried again", "err", err)
		}
	})
}

// A source is a member that may have what is missing here.
type source struct {
	id, address string
	leads       bool
	floor       uint64
	has         history.Gaps // indexes of which it has the facts
	lacks       history.Gaps // and of which it never will by itself
}

// round asks the members what they have, and takes what is missing here from one
// after the other, until none has more. Its error is about this node's own journal.
func (b *backfill) round(ctx context.Context) error {
	status, err := b.journal.Status()
	if err != nil {
		return err
	}
	gaps := status.Gaps
	if len(gaps) == 0 {
		if b.open {
			b.node.log.Info("the journal has no gap any more")
		}
		b.open, b.since = false, time.Time{}
		return nil
	}
	if b.since.IsZero() {
		b.since = time.Now()
	}
	_, servers := b.node.configuration()
	sources, silent := b.ask(ctx, servers)
	// What is taken closes the gap, also where retention has dropped some of it there;
	// a node that is not among the members that it knows does not know all of them yet.
	knows := serverOf(servers, b.node.config.NodeID) != nil
	sparing := (silent > 0 || !knows) && time.Since(b.since) < b.node.config.floorPatience
	for _, s := range sources {
		want := gaps.And(s.has)
		if sparing && s.floor > 0 {
			want = want.Minus(history.Gaps{{From: 1, To: s.floor}})
		}
		if len(want) == 0 || ctx.Err() != nil {
			continue
		}
		if !b.open {
			b.node.log.Info("the journal is filled with the facts of before from other members", "first", s.id, "log_indexes", gaps.Count())
		}
		b.open = true
		if gaps, err = b.drain(ctx, s, gaps, want); err != nil {
			return err
		}
	}
	if len(gaps) == 0 {
		b.node.log.Info("the journal has no gap any more")
		b.open, b.since = false, time.Time{}
		return nil
	}
	if ctx.Err() == nil && silent == 0 && knows {
		b.sayLost(sources, gaps)
	}
	return nil
}

// ask asks all other members what their journals have, and returns those that
// answer, the ones first whose retention has left most. silent is how many do not
// answer, or cannot.
func (b *backfill) ask(ctx context.Context, servers []raft.Server) (sources []source, silent int) {
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	leader, _ := b.node.Leader()
	asking, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	failures := map[string]error{}
	for _, server := range servers {
		id := string(server.ID)
		if id == b.node.config.NodeID {
			continue
		}
		if b.node.config.Peers == nil || time.Now().Before(b.shunned[id]) {
			silent++
			continue
		}
		wg.Go(func() {
			s := source{id: id, address: string(server.Address), leads: id == leader}
			if moved, ok := b.node.members.movedTo(server.ID); ok {
				s.address = string(moved)
			}
			err := b.extent(asking, &s)
			mu.Lock()
			defer mu.Unlock()
			if failures[id] = err; err == nil {
				sources = append(sources, s)
			}
		})
	}
	wg.Wait()
	for id, err := range failures {
		if err != nil {
			silent++
		}
		if ctx.Err() == nil {
			b.say(id, err)
		}
	}
	slices.SortFunc(sources, func(a, b source) int {
		return cmp.Or(cmp.Compare(a.floor, b.floor), compareBool(a.leads, b.leads), cmp.Compare(a.id, b.id))
	})
	return sources, silent
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (b *backfill) extent(ctx context.Context, s *source) error {
	var body extentAnswer
	if err := b.node.call(ctx, s.id, s.address, methodExtent, nil, &body); err != nil {
		return err
	}
	var list []history.Gap
	for _, gap := range body.Gaps {
		list = append(list, history.Gap(gap))
	}
	s.floor, s.lacks = body.Floor, history.Union(list...)
	s.has = history.Union(history.Gap{From: 1, To: body.Through}).Minus(s.lacks)
	return nil
}

// say logs what stands between this node and a member's facts, once until it
// changes.
func (b *backfill) say(id string, err error) {
	if err == nil {
		delete(b.said, id)
		return
	}
	// Which words an error has changes with ports and times.
	what := "unreachable"
	if _, refused := errors.AsType[*RefusedError](err); refused {
		what = "refused"
	} else if errors.Is(err, history.ErrNonsense) {
		what = "nonsense"
	}
	if b.said[id] == what {
		return
	}
	b.said[id] = what
	switch what {
	case "refused":
		b.node.log.Warn("a member gives no facts of the time before this node joined; one of an earlier version cannot: it is asked again, and the others", "node_id", id, "err", err)
	case "nonsense":
		b.node.log.Error("the facts that a member gives are refused; it is not asked for some time", "node_id", id, "err", err)
	default:
		b.node.log.Info("a member cannot be asked for the facts that are missing here; it is tried again", "node_id", id, "err", err)
	}
}

// drain takes from one member what it has of the gaps, the newest first, and
// returns the gaps that are left. An error is about this node's own journal.
func (b *backfill) drain(ctx context.Context, s source, gaps, want history.Gaps) (history.Gaps, error) {
	for len(want) > 0 && ctx.Err() == nil {
		began := time.Now()
		chunk, err := b.fetch(ctx, s, want[len(want)-1])
		if err == nil {
			err = b.journal.Backfill(chunk)
			if err != nil && !errors.Is(err, history.ErrNonsense) {
				return gaps, err
			}
		}
		if err != nil {
			if errors.Is(err, history.ErrNonsense) {
				b.shunned[s.id] = time.Now().Add(distrust)
			}
			if ctx.Err() == nil {
				b.say(s.id, err)
			}
			break // the next member is asked, or this one later
		}
		taken := history.Gaps{chunk.Range()}
		gaps, want = gaps.Minus(taken), want.Minus(taken)
		rest := min(max(chunkRest*time.Since(began), minChunkRest), maxChunkRest)
		if backoff.Wait(ctx, rest) != nil {
			break
		}
	}
	return gaps, nil //nolint:nilerr // what a member answers is said, and is no fault of this journal's
}

// fetch has a member give a part of the facts of a range.
func (b *backfill) fetch(ctx context.Context, s source, asked history.Gap) (*history.Chunk, error) {
	ctx, cancel := context.WithTimeout(ctx, chunkPatience)
	defer cancel()
	data, err := b.node.config.Peers.Call(ctx, s.id, s.address, methodChunk, mustEncode(chunkRequest(asked)))
	if err != nil {
		return nil, err
	}
	if len(data) > maxChunkAnswer {
		return nil, fmt.Errorf("%w: an answer of %d octets", history.ErrNonsense, len(data))
	}
	var a answer
	if err := wireDecoder.Unmarshal(data, &a); err != nil {
		return nil, fmt.Errorf("%w: the answer cannot be read: %w", history.ErrNonsense, err)
	}
	if a.Error != nil {
		return nil, decodeError(a.Error)
	}
	return history.DecodeChunk(a.Body, asked)
}

// sayLost says that no member has what is missing here, if all were asked: facts
// that none of them has are gone.
func (b *backfill) sayLost(sources []source, gaps history.Gaps) {
	for _, s := range sources {
		gaps = gaps.And(s.lacks)
	}
	if n := gaps.Count(); n != b.lost {
		b.lost = n
		if n > 0 {
			b.node.log.Warn("no member has the facts of some log entries: that part of the history is lost to the cluster",
				"log_indexes", n, "from", gaps[0].From, "to", gaps[len(gaps)-1].To)
		}
	}
}

// ownExtent answers what this node's journal has.
func (b *backfill) ownExtent() (extentAnswer, error) {
	status, err := b.journal.Status()
	if err != nil {
		return extentAnswer{}, err
	}
	e := extentAnswer{Through: status.Through, Floor: status.Floor}
	for _, gap := range CoarseGaps(status.Gaps, maxExtentGaps) {
		e.Gaps = append(e.Gaps, wireGaps(gap))
	}
	return e, nil
}

// CoarseGaps makes at most so many ranges of some, by taking what is between the
// oldest of them for missing too.
func CoarseGaps(gaps history.Gaps, most int) history.Gaps {
	if over := len(gaps) - most; over > 0 {
		return append(history.Gaps{{From: gaps[0].From, To: gaps[over].To}}, gaps[over+1:]...)
	}
	return gaps
}

// give answers a request for facts. One is answered at a time.
func (b *backfill) give(ctx context.Context, request []byte) (*history.Chunk, error) {
	var body chunkRequest
	if err := decodeCall(request, &body); err != nil {
		return nil, err
	}
	select {
	case b.serving <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-b.serving }()
	return b.journal.Chunk(history.Gap(body), history.ChunkSize)
}
