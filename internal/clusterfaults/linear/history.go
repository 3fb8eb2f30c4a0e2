package linear

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// History is what clients did and saw. Its methods are safe for concurrent use.
type History struct {
	begun time.Time

	mu      sync.Mutex
	ops     []operation
	open    map[*Pending]bool // operations under way
	unknown int
	notes   []porcupine.Annotation
	clients int
}

// operation is one that has ended, or will not be waited for any more.
type operation struct {
	porcupine.Operation
	place Place // the zero value for one whose outcome is not known
}

// NewHistory begins a history.
func NewHistory() *History { return &History{begun: time.Now(), open: map[*Pending]bool{}} }

// now is a moment of this history. The clock is the monotonic one.
func (h *History) now() int64 { return int64(time.Since(h.begun)) }

// Client is one who does one operation after the other. It belongs to one
// goroutine.
type Client struct {
	history *History
	id      int
}

// Client adds one.
func (h *History) Client() *Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients++
	return &Client{history: h, id: h.clients}
}

// Pending is an operation that has begun. It is ended by exactly one of its
// methods.
type Pending struct {
	client *Client
	in     Input
	call   int64
}

// Begin begins an operation.
func (c *Client) Begin(in Input) *Pending {
	h := c.history
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &Pending{client: c, in: in, call: h.now()}
	h.open[p] = true
	return p
}

// Done ends an operation with its answer.
func (p *Pending) Done(out Output) { p.DoneAt(out, Place{}) }

// DoneAt ends an operation with its answer, which stands at a place in the log.
func (p *Pending) DoneAt(out Output, place Place) {
	h := p.client.history
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, p)
	done := porcupine.Operation{ClientId: p.client.id, Input: p.in, Call: p.call, Output: out, Return: h.now()}
	h.ops = append(h.ops, operation{done, place})
}

// Unknown ends an operation that may have happened and may yet happen.
func (p *Pending) Unknown() {
	h := p.client.history
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, p)
	h.unknown++
	h.ops = append(h.ops, p.unknown())
	// It is still under way, and a client does one thing at a time.
	h.clients++
	p.client.id = h.clients
}

func (p *Pending) unknown() operation {
	return operation{Operation: porcupine.Operation{ClientId: p.client.id, Input: p.in, Call: p.call, Output: unknown{}}}
}

// Refused ends an operation that certainly did not happen.
func (p *Pending) Refused() {
	h := p.client.history
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, p)
}

// Note writes what else happened, for the picture; it returns what ends it.
func (h *History) Note(what string) (end func()) {
	start := h.now()
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.notes = append(h.notes, porcupine.Annotation{Tag: "faults", Start: start, End: h.now(), Description: what})
	}
}

// Len is how many operations are in the history, and of how many the outcome is
// not known.
func (h *History) Len() (operations, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops), h.unknown
}

// NotLinearizableError says that no order of the operations explains what
// clients were answered.
type NotLinearizableError struct {
	Result  porcupine.CheckResult
	Objects []string // that the answers about cannot be explained
	Picture string   // a page that shows the history
}

// Error implements error.
func (e *NotLinearizableError) Error() string {
	return fmt.Sprintf("the history is %s: %v; see %s", e.Result, e.Objects, e.Picture)
}

// Check looks for an order of the operations that explains every answer, object
// by object. It returns a *NotLinearizableError if there is none, or none was
// found within the time, having drawn a page that shows the history.
func (h *History) Check(limit time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.open) != 0 {
		return fmt.Errorf("%d operations are still under way", len(h.open))
	}
	end := h.now()
	ops := make([]porcupine.Operation, len(h.ops))
	for i, op := range h.ops {
		ops[i] = op.Operation
		if _, ok := op.Output.(unknown); ok {
			ops[i].Return = end
		}
	}
	slices.SortStableFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	m := model()
	result, info := porcupine.CheckOperationsVerbose(m, ops, limit)
	if result == porcupine.Ok {
		return nil
	}
	failure := &NotLinearizableError{Result: result}
	deadline := time.Now().Add(limit)
	for _, part := range partition(ops) {
		m := model()
		m.Partition = nil
		if porcupine.CheckOperationsTimeout(m, part, max(time.Until(deadline), time.Second)) != porcupine.Ok {
			in := part[0].Input.(Input)
			failure.Objects = append(failure.Objects, fmt.Sprintf("%s %s", in.Kind.table(), in.Object))
		}
	}
	info.AddAnnotations(h.notes)
	page, err := os.CreateTemp("", "certctl-history-*.html")
	if err == nil {
		failure.Picture = page.Name()
		err = porcupine.Visualize(m, info, page)
		page.Close()
	}
	if err != nil {
		failure.Picture = fmt.Sprintf("nothing: the page could not be written: %v", err)
	}
	return failure
}
