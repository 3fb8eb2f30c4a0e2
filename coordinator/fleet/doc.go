// Package fleet is what a coordinator knows: agents, the summaries of their
// certificates, orders, tokens, the certificate authority. It is the state
// machine that Raft replicates, and nothing but a function: [State.Apply] turns
// a state and a log entry into the next state, results for the proposers and
// facts for the journal, with no clock, no random number, no I/O and no log.
// Whatever a command needs of these is made by its proposer and travels in it.
//
// One goroutine applies; any number read at the same time, each through a
// [View], which is a consistent picture of one moment. Records that a View
// returns are shared and must not be changed.
//
// DESIGN.md says why things are as they are.
package fleet
