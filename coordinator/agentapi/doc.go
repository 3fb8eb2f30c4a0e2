// Package agentapi answers the agents: enrolment, sync and the renewal of
// identities, as package wire describes them, and signs the orders that agents
// place at the built-in CA.
//
// A [Service] does on every node what any node can do, and on the leader what
// only the leader may: it stores changes through Raft, remembers when agents
// were last heard of, and works the orders off. An agent with nothing new costs
// no Raft write.
//
// DESIGN.md has the promises, the order of the checks and the reasons.
package agentapi
