package sync

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/call"
	"github.com/certctl/certctl/shared/wire"
)

// repeatFor is how long an unanswered request is repeated as it is. Later its
// SentAt would look like a wrong clock, so that a new one is made, which
// carries the same and more: the coordinator knows rows by revision and facts
// by number, whichever request brings them.
const repeatFor = time.Minute

// limits of one request. They are the wire's, halved when a request was too
// large.
type limits struct{ rows, events, orders int }

var fullLimits = limits{rows: wire.MaxRows, events: wire.MaxEvents, orders: wire.MaxOrders}

func (l limits) halved() limits {
	return limits{rows: max(l.rows/2, 1), events: max(l.events/2, 1), orders: max(l.orders/2, 1)}
}

// exchange is one request with what is to be done when it is answered.
type exchange struct {
	body    []byte
	builtAt time.Time // wall clock

	base, revision, head uint64
	resyncID             string
	orders               []string
	collected            []string
	told                 map[string]bool // commands that are over
	reported             string          // of assignments
	// more says that not everything that waits went into this request.
	more bool
}

func (x *exchange) tooOld(now time.Time) bool {
	return now.Round(0).Sub(x.builtAt.Round(0)).Abs() > repeatFor
}

// exchange sends one request, or repeats the one whose fate is unknown, and
// applies the answer. more says that another one is to follow at once.
func (c *Client) exchange(ctx context.Context) (answer *wire.SyncResponse, more bool, err error) {
	x := c.unanswered
	repeated := x != nil && !x.tooOld(time.Now())
	if !repeated {
		if x, err = c.build(); err != nil {
			return nil, false, err
		}
		c.unanswered = x
	}
	answer = new(wire.SyncResponse)
	result, err := c.link.post(ctx, wire.SyncPath, x.body, answer)
	server := c.link.server()
	c.update(func(s *State) { s.Server = server })
	if err == nil && c.answeredBy != server {
		if c.answeredBy != "" {
			c.log.Info("another server of the coordinator is used", "server", server, "before", c.answeredBy)
		}
		c.answeredBy = server
	}
	if err != nil {
		if call.Decided(err) {
			c.unanswered = nil
		}
		return nil, false, err
	}
	c.unanswered = nil
	c.clock(answer.ServerTime, result.SentAt, result.Took)
	if more, err = c.apply(x, answer); err == nil && repeated && !more {
		// It was made before the coordinator could be reached; what has happened
		// since must not wait for the end of the pause as well.
		more, err = c.news(x)
	}
	return answer, more, err
}

// news reports whether there is more to tell than an answered request told.
func (c *Client) news(x *exchange) (bool, error) {
	changes, err := c.store.Changes(x.head, 1)
	if err != nil || changes.Head != x.head {
		return err == nil, err
	}
	events, err := c.store.Events(1)
	if err != nil || len(events) > 0 {
		return err == nil, err
	}
	open, err := c.store.OpenOrders()
	return slices.ContainsFunc(open, func(o store.Order) bool { return !c.placed[o.Request.ID] }), err
}

// build makes the next request from the store.
func (c *Client) build() (*exchange, error) {
	for limit := c.limits; ; limit = limit.halved() {
		x, request, err := c.compose(limit)
		if err != nil {
			return nil, err
		}
		request.Sequence = c.sequence + 1
		if x.body, err = json.Marshal(request); err != nil {
			return nil, fmt.Errorf("sync request: %w", err)
		}
		if len(x.body) <= wire.MaxSyncBody || limit == limit.halved() {
			c.sequence++
			return x, nil
		}
	}
}

func (c *Client) compose(limit limits) (*exchange, *wire.SyncRequest, error) {
	base := c.ack.AckedRevision
	if c.ack.ResyncID != "" {
		base = c.cursor
	}
	changes, err := c.store.Changes(base, limit.rows)
	if err != nil {
		return nil, nil, err
	}
	events, err := c.store.Events(limit.events)
	if err != nil {
		return nil, nil, err
	}
	collected, err := c.store.CollectedOrders()
	if err != nil {
		return nil, nil, err
	}
	open, err := c.store.OpenOrders()
	if err != nil {
		return nil, nil, err
	}
	host, err := c.host()
	if err != nil {
		return nil, nil, err
	}
	orders, moreOrders := c.choose(open, limit.orders)
	now := time.Now()
	x := &exchange{
		builtAt: now, resyncID: c.ack.ResyncID,
		// A store that was set back can be below what was acknowledged.
		base: min(base, changes.Upto), revision: changes.Upto, head: changes.Head,
		collected: collected[:min(len(collected), limit.orders)],
		more:      changes.Upto < changes.Head || len(events) == limit.events || moreOrders || len(collected) > limit.orders,
	}
	request := &wire.SyncRequest{
		Protocol: wire.Protocol, BootID: c.bootID, SentAt: now.UTC(), Host: host,
		BaseRevision: x.base, Revision: x.revision, HeadRevision: x.head, Digest: changes.Digest,
		ResyncID: x.resyncID, Rows: changes.Rows, Removed: changes.Removed,
		Events: events, Collected: x.collected, ServersDigest: c.link.nodesDigest(),
	}
	if !now.Before(c.trustAfter) {
		request.Trust = &c.link.trust
	}
	if err := c.tell(x, request); err != nil {
		return nil, nil, err
	}
	for _, order := range orders {
		x.orders = append(x.orders, order.Request.ID)
		order.Request.PlacedAt = order.PlacedAt.UTC()
		request.Orders = append(request.Orders, order.Request)
	}
	return x, request, nil
}

func (c *Client) host() (wire.HostReport, error) {
	host := c.cfg.Host
	horizon, err := c.store.Horizon(c.now())
	if err != nil {
		return host, err
	}
	host.SafeUntil, host.NotSafe = horizon.SafeUntil, len(horizon.NotSafe)
	if c.cfg.Warnings != nil {
		found, err := c.cfg.Warnings()
		if err != nil {
			return host, err
		}
		host.Warnings = clipWarnings(found)
	}
	host.ClockSkewSeconds = c.skew()
	host.EventsDropped, err = c.store.EventsDropped()
	return host, err
}

// clipWarnings cuts warnings to what a report takes, and says so.
func clipWarnings(found []string) []string {
	if len(found) == 0 {
		return nil
	}
	list := make([]string, 0, wire.MaxHostWarnings)
	for i, text := range found {
		if i == wire.MaxHostWarnings-1 && len(found) > wire.MaxHostWarnings {
			return append(list, fmt.Sprintf("%d more; \"certctl-agent status\" on the host shows all", len(found)-i))
		}
		text = strings.ToValidUTF8(text, "\ufffd")
		if len(text) > wire.MaxHostWarningLen {
			const more = "…"
			text = strings.ToValidUTF8(text[:wire.MaxHostWarningLen-len(more)], "") + more
		}
		list = append(list, text)
	}
	return list
}

// choose takes the open orders for one request: those that the coordinator has
// not confirmed yet, the oldest first, and then the others in turn. more says
// that some of the first kind are left.
func (c *Client) choose(open []store.Order, limit int) (chosen []store.Order, more bool) {
	var confirmed []store.Order
	stillOpen := make(map[string]bool, len(open))
	for _, order := range open {
		stillOpen[order.Request.ID] = true
		if c.placed[order.Request.ID] {
			confirmed = append(confirmed, order)
		} else if len(chosen) < limit {
			chosen = append(chosen, order)
		} else {
			more = true
		}
	}
	maps.DeleteFunc(c.placed, func(id string, _ bool) bool { return !stillOpen[id] })
	slices.SortFunc(confirmed, func(a, b store.Order) int { return strings.Compare(a.Request.ID, b.Request.ID) })
	next, _ := slices.BinarySearchFunc(confirmed, c.turn+"\x00", func(o store.Order, id string) int { return cmp.Compare(o.Request.ID, id) })
	for i := range confirmed {
		if len(chosen) == limit {
			break
		}
		order := confirmed[(next+i)%len(confirmed)]
		chosen = append(chosen, order)
		c.turn = order.Request.ID
	}
	return chosen, more
}

// apply makes durable what an answer says. Each step may be repeated: after a
// crash between two of them the coordinator says the rest again.
func (c *Client) apply(x *exchange, answer *wire.SyncResponse) (more bool, err error) {
	if err := c.storeResults(answer.Orders); err != nil {
		return false, err
	}
	if answer.Event > c.ackedEvent {
		if err := c.store.AckEvents(answer.Event); err != nil {
			return false, err
		}
		c.ackedEvent = answer.Event
	}
	if len(x.collected) > 0 {
		if err := c.store.ForgetOrders(x.collected); err != nil {
			return false, err
		}
	}
	for _, id := range x.orders {
		c.placed[id] = true
	}
	if err := c.heed(x, answer); err != nil {
		return false, err
	}
	if err := c.learn(answer.Trust); err != nil {
		return false, err
	}
	if err := c.befriend(answer.Servers); err != nil {
		return false, err
	}
	more = c.acknowledged(x, answer)
	return more, c.keep()
}

// acknowledged moves the revisions on. It returns whether another request is to
// follow at once.
func (c *Client) acknowledged(x *exchange, answer *wire.SyncResponse) (more bool) {
	if answer.ResyncID == "" {
		c.ack.ResyncID, c.ack.AckedRevision = "", answer.Revision
		return x.more
	}
	// Removals that the coordinator has heard of are not needed for a full
	// inventory, and revisions that it has seen must not be used again.
	c.ack.AckedRevision = max(c.ack.AckedRevision, answer.Revision)
	switch {
	case answer.ResyncID != x.resyncID:
		c.log.Info("coordinator asks for the full inventory", "resync_id", answer.ResyncID)
		c.ack.ResyncID, c.cursor = answer.ResyncID, 0
	case x.revision < x.head:
		c.cursor = x.revision
	default:
		// The last page came, and yet it wants them all: from the beginning.
		c.cursor = 0
	}
	return true
}

// storeResults keeps what became of orders. A result that makes no sense is
// reported and left out: it must not keep the others away.
func (c *Client) storeResults(results []wire.OrderResult) error {
	stored := false
	for _, result := range results {
		if result.State == wire.OrderPending {
			news, err := c.storeProgress(&result)
			if err != nil {
				return err
			}
			stored = stored || news
			continue
		}
		order, known, err := c.store.Order(result.ID)
		if err != nil {
			return err
		}
		if _, err := c.store.SetOrderResult(result); err != nil {
			if fatal(err) {
				return err
			}
			c.log.Warn("result of an order was not stored", "order_id", result.ID, "state", result.State, "err", err)
			continue
		}
		if !known || order.Result != nil {
			continue
		}
		stored = true
		c.log.Info("result of an order has arrived", "order_id", result.ID, "certificate", order.Request.Certificate, "state", result.State)
		if c.cfg.OnResult != nil {
			c.cfg.OnResult(order.Request.Certificate)
		}
	}
	if stored {
		c.mu.Lock()
		close(c.results)
		c.results = make(chan struct{})
		c.mu.Unlock()
	}
	return nil
}

// storeProgress keeps what an order waits for that is pending, and reports whether that
// is news. What makes no sense is left out: the order is pending all the same.
func (c *Client) storeProgress(result *wire.OrderResult) (news bool, err error) {
	progress := result.Parsed()
	if progress == (wire.OrderProgress{}) {
		return false, nil // of the built-in CA, or from a coordinator that says nothing
	}
	if news, err = c.store.SetOrderProgress(result.ID, progress); err != nil {
		if fatal(err) {
			return false, err
		}
		c.log.Warn("progress of an order was not stored", "order_id", result.ID, "stage", progress.Stage, "err", err)
		return false, nil
	}
	if !news {
		return false, nil
	}
	order, known, err := c.store.Order(result.ID)
	if err != nil || !known {
		return false, err
	}
	log := c.log.Info
	if progress.Person() {
		log = c.log.Warn
	}
	log("order is pending", "order_id", result.ID, "certificate", order.Request.Certificate, "stage", progress.Stage, "detail", progress.Detail, "mend", progress.Mend)
	if c.cfg.OnResult != nil {
		c.cfg.OnResult(order.Request.Certificate)
	}
	return true, nil
}
