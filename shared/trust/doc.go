// Package trust is the signed history of what a fleet trusts for its
// coordinator: a chain of generations, each of which lists root certificates,
// names the digest of the one before, and is signed by every root of the one
// before and every root of its own. Whoever holds the roots of one generation
// can follow the chain to the newest, however many came in between, from a
// source that it does not trust at all.
//
// DESIGN.md has the encoding, the rules and the reasons.
package trust
