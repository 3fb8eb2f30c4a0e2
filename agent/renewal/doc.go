// Package renewal keeps the managed certificates of one host valid: it decides
// when each is renewed, obtains the new pair from its issuer, puts it into
// service, and does so again after every failure and every crash.
//
// Deciding and doing are apart. decide is a pure function from a stored record,
// its configuration and the wall clock to the one step that comes next; the
// doing part carries out that step and stores its outcome in one transaction.
// There is no other state: an engine that is started on the same disk goes on
// with the same order and the same key. docs/reference/renewal.md in the
// repository lists the steps that cannot be taken back and what is on disk
// before each; DESIGN.md beside this file gives the reasons.
package renewal
