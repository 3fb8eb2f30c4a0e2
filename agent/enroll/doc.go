// Package enroll exchanges an enrolment token for the agent's identity, and
// judges identities that a coordinator hands out.
//
// The first contact trusts one root certificate by the fingerprint in the
// token, and nothing else. The identity's key is on disk, and recorded beside
// the token's id, before the first request: the same token is always tried with
// the same key, which makes a rerun after a lost answer get the same identity.
package enroll
