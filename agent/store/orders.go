package store

import (
	"bytes"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/wire"
)

// PutOrder stores a new order; a zero PlacedAt becomes now. An order that is
// stored already stays as it is, with its result, if the request is the same;
// another request under its id is ErrOrderConflict.
func (s *Store) PutOrder(order Order) error {
	if err := checkName("order id", order.Request.ID); err != nil {
		return err
	}
	if order.Result != nil || order.Collected {
		return fmt.Errorf("order %s: a new order has no result; store it with SetOrderResult", order.Request.ID)
	}
	return s.write(commitOrder, func(c *change) error {
		key := []byte(order.Request.ID)
		old, err := getJSON[Order](c.tx, bucketOrders, key)
		if err != nil {
			return err
		}
		if old != nil {
			if !sameRequest(old.Request, order.Request) {
				return fmt.Errorf("order %s for certificate %q: %w; begin a new order", order.Request.ID, order.Request.Certificate, ErrOrderConflict)
			}
			return nil
		}
		if order.PlacedAt.IsZero() {
			order.PlacedAt = s.now()
		}
		return c.putJSON(bucketOrders, key, order)
	})
}

func sameRequest(a, b wire.OrderRequest) bool {
	return a.ID == b.ID && a.Certificate == b.Certificate && a.Issuer == b.Issuer &&
		bytes.Equal(a.CSR, b.CSR) && a.ValiditySeconds == b.ValiditySeconds
}

// Order returns the order of that id, and whether there is one.
func (s *Store) Order(id string) (*Order, bool, error) {
	var order *Order
	err := s.view(func(tx *bolt.Tx) (err error) {
		if order, err = getJSON[Order](tx, bucketOrders, []byte(id)); order != nil {
			order.Collected = isCollected(tx, id)
		}
		return err
	})
	return order, order != nil, err
}

// OpenOrders returns the orders without a result, the oldest first. Those of
// certificates that were removed are not among them: they wait.
func (s *Store) OpenOrders() ([]Order, error) {
	var list []Order
	err := s.view(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketOrders)).ForEach(func(key, value []byte) error {
			var order Order
			if err := decode(bucketOrders, key, value, &order); err != nil {
				return err
			}
			if order.Result == nil && !isRemoved(tx, order.Request.Certificate) {
				list = append(list, order)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b Order) int { return a.PlacedAt.Compare(b.PlacedAt) })
	return list, nil
}

// SetOrderResult stores what became of an order and marks it as collected, until
// ForgetOrders. The first result stays: a repetition only marks it again. A
// result that is not final changes nothing.
//
// A final result for an order that is not known here, which was deleted or
// belongs to a state file that was replaced, is not stored; its id is marked as
// collected too, so that the coordinator stops sending it, and known is false.
func (s *Store) SetOrderResult(result wire.OrderResult) (known bool, err error) {
	if err := checkResult(result); err != nil {
		return false, err
	}
	err = s.write(commitOrderResult, func(c *change) error {
		key := []byte(result.ID)
		order, err := getJSON[Order](c.tx, bucketOrders, key)
		if err != nil {
			return err
		}
		known = order != nil
		if result.State == wire.OrderPending {
			return nil
		}
		if known && order.Result == nil {
			order.Result = &result
			if err := c.putJSON(bucketOrders, key, order); err != nil {
				return err
			}
		}
		return c.put(bucketCollected, key, seal(bucketCollected, key, nil))
	})
	return known, err
}

// SetOrderProgress stores what the coordinator says of an order that is pending, and
// reports whether that is news of an order that is open here.
func (s *Store) SetOrderProgress(id string, progress wire.OrderProgress) (changed bool, err error) {
	if err := checkName("order id", id); err != nil {
		return false, err
	}
	news := func(order *Order) bool { return order != nil && order.Result == nil && order.Progress != progress }
	order, _, err := s.Order(id)
	if err != nil || !news(order) {
		return false, err // without a transaction that writes: most answers say nothing new
	}
	err = s.write(commitOrderProgress, func(c *change) error {
		key := []byte(id)
		order, err := getJSON[Order](c.tx, bucketOrders, key)
		if err != nil || !news(order) {
			return err
		}
		changed, order.Progress = true, progress
		return c.putJSON(bucketOrders, key, order)
	})
	return changed && err == nil, err
}

func checkResult(result wire.OrderResult) error {
	if err := checkName("order id", result.ID); err != nil {
		return err
	}
	switch result.State {
	case wire.OrderPending:
	case wire.OrderIssued:
		if result.Chain == "" {
			return fmt.Errorf("result of order %s is %q without a certificate; check the coordinator", result.ID, result.State)
		}
	case wire.OrderRejected:
		if result.Problem == nil {
			return fmt.Errorf("result of order %s is %q without a problem; check the coordinator", result.ID, result.State)
		}
	default:
		return fmt.Errorf("result of order %s has the unknown state %q; update certctl-agent", result.ID, result.State)
	}
	return nil
}

// CollectedOrders returns the ids of the orders whose results are stored and of
// which the coordinator was not yet told, ordered by id.
func (s *Store) CollectedOrders() ([]string, error) {
	var ids []string
	err := s.view(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketCollected)).ForEach(func(key, _ []byte) error {
			ids = append(ids, string(key))
			return nil
		})
	})
	return ids, err
}

// ForgetOrders takes the mark of collection off orders, once the coordinator
// has acknowledged it. The orders and their results stay until DeleteOrder.
func (s *Store) ForgetOrders(ids []string) error {
	return s.write(commitOrdersTold, func(c *change) error {
		for _, id := range ids {
			if err := c.remove(bucketCollected, []byte(id)); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteOrder deletes an order with its result; it need not be there. The mark
// of collection stays until the coordinator has acknowledged it.
func (s *Store) DeleteOrder(id string) error {
	return s.write(commitOrderDeleted, func(c *change) error { return c.remove(bucketOrders, []byte(id)) })
}

func isCollected(tx *bolt.Tx, id string) bool {
	return tx.Bucket([]byte(bucketCollected)).Get([]byte(id)) != nil
}
