package fleet

import "iter"

// AllAgents visits all agents by id, retired ones too. The records must not be
// changed.
func (v *View) AllAgents() iter.Seq[*Agent] { return every[Agent](v, TableAgents) }

// AllCertificates visits all summaries by agent and name. The records must not
// be changed.
func (v *View) AllCertificates() iter.Seq[*Certificate] {
	return every[Certificate](v, TableCertificates)
}

// AllOrders visits all orders, the stubs of collected ones too. The records must
// not be changed.
func (v *View) AllOrders() iter.Seq[*Order] { return every[Order](v, TableOrders) }

func every[T any](v *View, table Table) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for records := v.scan(table, indexID, nil); ; {
			record, ok := records.Next().(*T)
			if !ok || !yield(record) {
				return
			}
		}
	}
}

// Tables lists the tables whose rows are of interest to a person.
func Tables() []Table {
	var list []Table
	for _, s := range schemas {
		switch s.table {
		case tablePosition, tableInfos, tableSeen, tableStaged:
		default:
			list = append(list, s.table)
		}
	}
	return list
}
