// Package recovery is what an operator does when a cluster has lost its quorum
// for good: look at what the surviving nodes have, compare them, and make the
// one with the most a cluster of one, which the others then join afresh.
//
// It works on the data directories of stopped nodes and needs no other node.
// DESIGN.md holds the reasons.
package recovery
