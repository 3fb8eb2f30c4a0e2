// Package trail is the chain over the audit trail: what the hash of a fact covers, and
// how a reader finds out whether the facts that it has are those that were written.
//
// The replicated state makes the chain with it, and who verifies one recomputes it with
// the same code, from what a server or a file says the facts are, and believes nothing
// else. docs/reference/audit.md describes it for those who write their own verifier.
package trail
