// Package store keeps everything that an agent must not forget in one bbolt
// file: the record of each managed certificate, when it is to be looked at
// again, the inventory that the coordinator is told of, the outbox of facts,
// open orders, the agent's identity and the state of its issuers. Private keys
// are never in it; they are files (package keys).
//
// Each write is one synced transaction: when a method returns nil, what it was
// asked to store survives a crash and a power cut; when it returns an error
// other than ErrStateUnknown, nothing of it is stored. A write that changes
// nothing touches no disk. DESIGN.md has the reasons.
//
// A Store is safe for concurrent use. Reads never wait for writes; writes are
// serialised.
package store
