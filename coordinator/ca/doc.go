// Package ca is the coordinator's built-in certificate authority: one root and
// two issuing CAs beneath it, one for the identities of agents and one for
// everything else, so that no certificate which an agent may order can ever pass
// for an identity.
//
// The certificates and the private keys, sealed under a key that never leaves
// the coordinator's hosts, are part of the replicated state. A [CA] is sealed
// when it is made; once it is unsealed it issues certificates from memory,
// without any other state: who may have one is decided by its callers.
//
// DESIGN.md has the profiles, the sealing and the reasons.
package ca
