// Package fakeca is what the fakes of commercial authorities have in common: an
// authority that really signs, a ledger of the orders that were accepted, the
// decisions of people, and everything that goes wrong between an authority and who
// orders from it. Each vendor's dialect is a package below this one, an
// [http.Handler] over a [Core].
//
// A fake has the vendor's paths, fields, words and codes, and no knowledge of
// certctl. It is driven by a clock that its user gives it, and by a seed: the same
// seed and the same requests meet the same faults. An order moves when it is looked
// at, not by a goroutine, so that a fake that nobody asks does nothing, and a fake
// in a testing/synctest bubble keeps its clock from nothing.
package fakeca
