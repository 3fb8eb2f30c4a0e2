package fleet

import "time"

func orderIndexes() []index {
	// brokered leaves the orders at the built-in CA out, and those that keep does.
	brokered := func(name string, keep func(*Order) bool, parts func(*Order) []any, same func(a, b *Order) bool) index {
		x := index{name: name, keys: func(r any) [][]byte {
			o := r.(*Order)
			if !o.Brokered() || keep != nil && !keep(o) {
				return nil
			}
			return only(key(append(parts(o), o.Agent, o.ID)...))
		}}
		if same != nil {
			x.same = sameBy(same)
		}
		return x
	}
	placed := func(a, b *Order) bool { return a.Issuer == b.Issuer && a.PlacedAt.Equal(b.PlacedAt) }
	return []index{
		{name: indexID, keys: func(r any) [][]byte { return only(orderKey(r.(*Order))) }},
		{name: indexState, keys: func(r any) [][]byte {
			o := r.(*Order)
			return only(key(string(o.State), o.PlacedAt, o.Agent, o.ID))
		}, same: sameBy(func(a, b *Order) bool { return a.State == b.State && a.PlacedAt.Equal(b.PlacedAt) })},
		{name: indexBuiltin, keys: func(r any) [][]byte {
			o := r.(*Order)
			if o.Brokered() || o.State != OrderRequested {
				return nil
			}
			return only(key(o.PlacedAt, o.Agent, o.ID))
		}},
		{name: indexCollected, keys: func(r any) [][]byte {
			o := r.(*Order)
			if o.State != OrderCollected {
				return nil
			}
			return only(key(o.keptUntil(), o.Agent, o.ID))
		}},
		brokered(indexIssuer, nil, func(o *Order) []any { return []any{o.Issuer, o.PlacedAt} }, placed),
		brokered(indexStage, nil, func(o *Order) []any { return []any{string(o.Stage()), o.Issuer, o.PlacedAt} },
			func(a, b *Order) bool { return placed(a, b) && a.Stage() == b.Stage() }),
		brokered(indexOpen, func(o *Order) bool { return !o.Ended() }, func(o *Order) []any { return []any{o.Issuer, o.PlacedAt} },
			func(a, b *Order) bool { return placed(a, b) && a.Ended() == b.Ended() }),
		brokered(indexAge, nil, func(o *Order) []any { return []any{o.PlacedAt} }, placed),
		brokered(indexDue, func(o *Order) bool { return !o.due().IsZero() }, func(o *Order) []any { return []any{o.due()} }, nil),
		brokered(indexRevocation, func(o *Order) bool { return o.Revocation != nil }, func(o *Order) []any { return []any{revocationState(o)} },
			func(a, b *Order) bool {
				return a.Issuer == b.Issuer && (a.Revocation == nil) == (b.Revocation == nil) && (a.Revocation == nil || revocationState(a) == revocationState(b))
			}),
		brokered(indexPublicKey, nil, func(o *Order) []any { return []any{o.Issuer, o.PublicKeyFingerprint} },
			func(a, b *Order) bool {
				return a.Issuer == b.Issuer && a.PublicKeyFingerprint == b.PublicKeyFingerprint
			}),
	}
}

// BuiltinOrders lists the orders that wait for the built-in CA, oldest first, up to
// limit (0 is all).
func (v *View) BuiltinOrders(limit int) []*Order {
	return first[Order](v.scan(TableOrders, indexBuiltin, nil), limit, nil)
}

// OrdersDue lists the orders at authorities for which something is to be done by a
// moment, that which is due first first, up to limit (0 is all).
func (v *View) OrdersDue(until time.Time, limit int) []*Order {
	return first(v.scan(TableOrders, indexDue, nil), limit, func(o *Order) bool { return !o.due().After(until) })
}

// NextOrderDue is when something is to be done next for an order at an authority,
// zero if nothing is.
func (v *View) NextOrderDue() time.Time {
	order, ok := get[Order](v, TableOrders, indexDue, nil)
	if !ok {
		return time.Time{}
	}
	return order.due()
}

// OpenOrders lists the orders at authorities that have not ended, those of one issuer
// or all with "", oldest first within an issuer, up to limit (0 is all).
func (v *View) OpenOrders(issuer string, limit int) []*Order {
	var prefix []byte
	if issuer != "" {
		prefix = key(issuer)
	}
	return first[Order](v.scan(TableOrders, indexOpen, prefix), limit, nil)
}

// OrdersByKey lists the orders at an issuer, ended ones too, for a public key
// (SHA-256 of its SubjectPublicKeyInfo, lower-case hex).
func (v *View) OrdersByKey(issuer, fingerprint string) []*Order {
	if issuer == "" || fingerprint == "" {
		return nil
	}
	return collect[Order](v.scan(TableOrders, indexPublicKey, key(issuer, fingerprint)))
}

// OrdersPlaced is how many orders of an agent at an issuer were placed after a moment,
// or are being placed, and when the first of those was. Those that are known not to have
// been placed do not count.
func (v *View) OrdersPlaced(agent, issuer string, after time.Time) (count int, first time.Time) {
	for records := v.scan(TableOrders, indexID, key(agent)); ; {
		order, ok := records.Next().(*Order)
		if !ok {
			return count, first
		}
		if order.Issuer != issuer || order.Brokering == nil {
			continue
		}
		at := order.Brokering.Claim.At
		if at.IsZero() {
			at = order.Brokering.SubmittedAt // of one that a backup did not know to be placed
		}
		if !at.After(after) {
			continue
		}
		if count++; first.IsZero() || at.Before(first) {
			first = at
		}
	}
}

// first lists records up to limit (0 is all), as long as they are good (nil is all).
func first[T any](records interface{ Next() any }, limit int, good func(*T) bool) []*T {
	var list []*T
	for limit <= 0 || len(list) < limit {
		record, ok := records.Next().(*T)
		if !ok || good != nil && !good(record) {
			break
		}
		list = append(list, record)
	}
	return list
}

// OrderFilter narrows a list of orders at authorities. What is not set matches all.
type OrderFilter struct {
	Stage       Stage
	Issuer      string
	Agent       string
	Certificate string // its name in the agent's configuration
	Open        bool   // only those that have not ended
	ByAge       bool   // the list goes by the time at which they came in
}

// BrokeredOrders lists orders at authorities: those of an agent by id, others by
// issuer and the time at which they came in, or all by that time alone. next continues the list; it is "" at the
// end. The error is ErrCursor.
func (v *View) BrokeredOrders(f OrderFilter, page Page) (list []*Order, next string, err error) {
	return paginate(v, f.plan(), page, func(o *Order) verdict {
		return keep(o.Brokered() &&
			(f.Stage == "" || o.Stage() == f.Stage) &&
			(f.Issuer == "" || o.Issuer == f.Issuer) &&
			(f.Agent == "" || o.Agent == f.Agent) &&
			(f.Certificate == "" || o.Certificate == f.Certificate) &&
			(!f.Open || !o.Ended()))
	})
}

func (f OrderFilter) plan() scanPlan {
	by := func(index string, prefix []byte) scanPlan {
		return scanPlan{table: TableOrders, index: index, prefix: prefix}
	}
	switch {
	case f.ByAge:
		return by(indexAge, nil)
	case f.Agent != "":
		return by(indexID, key(f.Agent))
	case f.Stage != "" && f.Issuer != "":
		return by(indexStage, key(string(f.Stage), f.Issuer))
	case f.Stage != "":
		return by(indexStage, key(string(f.Stage)))
	}
	index := indexIssuer
	if f.Open {
		index = indexOpen
	}
	if f.Issuer != "" {
		return by(index, key(f.Issuer))
	}
	return by(index, nil)
}

// OrderCount is how many orders of an issuer are at a stage.
type OrderCount struct {
	Issuer string
	Stage  Stage
	Count  int
}

// OrderCounts counts the orders at authorities by stage and issuer. It leaves out
// those that are delivered, which are by far the most: its cost is that of the orders
// that are under way or came to nothing.
func (v *View) OrderCounts() []OrderCount {
	var counts []OrderCount
	for _, stage := range Stages() {
		if stage == StageDelivered {
			continue
		}
		for records := v.scan(TableOrders, indexStage, key(string(stage))); ; {
			order, ok := records.Next().(*Order)
			if !ok {
				break
			}
			if last := len(counts) - 1; last >= 0 && counts[last].Stage == stage && counts[last].Issuer == order.Issuer {
				counts[last].Count++
				continue
			}
			counts = append(counts, OrderCount{Issuer: order.Issuer, Stage: stage, Count: 1})
		}
	}
	return counts
}
