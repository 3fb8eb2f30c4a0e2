// Package history is the coordinator's memory of what happened: the journal of
// the facts that applied log entries made, in one bbolt file.
//
// Facts have the order that Raft gave them. Routine facts are kept for a time
// and up to a size; what goes is counted. Facts of the audit trail are never
// dropped.
//
// DESIGN.md says why things are as they are.
package history
