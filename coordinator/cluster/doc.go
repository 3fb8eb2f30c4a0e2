// Package cluster runs one node of the coordinator's Raft cluster: it keeps the
// log and the snapshots, feeds committed entries to the fleet's state machine
// and the facts that come out of them to the journal, gathers concurrent
// proposals into log entries, and runs the leader's work while this node leads.
//
// A cluster of one node is a cluster like any other, without a network.
//
// DESIGN.md holds the promises on durability and order, and the reasons.
package cluster
