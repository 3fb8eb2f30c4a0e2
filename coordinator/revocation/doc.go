// Package revocation publishes the revocation lists of the built-in CA (RFC 5280,
// section 5). The state says what stands on the list of each number; every node
// signs it from there when it is asked for, and the leader makes a new number
// when something was revoked, and once a day.
package revocation
