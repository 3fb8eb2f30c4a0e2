package store

import bolt "go.etcd.io/bbolt"

// OrdersOf returns all orders for that certificate, with or without a result,
// ordered by id: what is to be deleted once a later order has taken their place.
func (s *Store) OrdersOf(certificate string) ([]Order, error) {
	var list []Order
	err := s.view(func(tx *bolt.Tx) (err error) {
		list, err = ordersOf(tx, certificate)
		return err
	})
	return list, err
}

func ordersOf(tx *bolt.Tx, certificate string) ([]Order, error) {
	var list []Order
	err := tx.Bucket([]byte(bucketOrders)).ForEach(func(key, value []byte) error {
		var order Order
		if err := decode(bucketOrders, key, value, &order); err != nil {
			return err
		}
		if order.Request.Certificate == certificate {
			order.Collected = isCollected(tx, order.Request.ID)
			list = append(list, order)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}
