// Package resource holds the documents that the API and its clients exchange.
// It is all that the two share: a client of the API needs nothing else of the
// coordinator.
//
// Times are RFC 3339 in UTC. A time that is not there is left out. Fingerprints
// are SHA-256 of the DER in lower-case hex, serial numbers lower-case hex.
// Clients ignore fields that they do not know.
package resource
