// Package report tells how the hosts of a fleet stand: each by itself, those at risk
// first, and all of them in sums. It is pure: what it says follows from a view of the
// replicated tables, from when hosts were last heard of, and from a clock that others
// show it. Nodes that give it the same get the same.
//
// DESIGN.md says why things are as they are.
package report
