// Package clusterca is the certificate authority of the connections between the
// nodes of one cluster. It is apart from the built-in CA, which serves the fleet:
// nothing that the one has signed counts with the other.
//
// A root signs the certificates of nodes and nothing else. Its private key lies
// sealed in the replicated state; every node has the seal key, and signs for
// itself. DESIGN.md says why, and how a root is replaced.
//
// All functions are pure but for randomness: the time comes from the caller, and
// what they make is the caller's to store.
package clusterca
