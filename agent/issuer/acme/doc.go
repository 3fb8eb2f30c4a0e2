// Package acme obtains certificates from an ACME server (RFC 8555) with the
// extensions that matter to an unattended host: IP identifiers (RFC 8738),
// tls-alpn-01 (RFC 8737), renewal information with replacement orders
// (RFC 9773), external account binding, certificate profiles and the choice
// among alternate chains.
//
// The order of the irreversible steps, and what is durable before each, is in
// DESIGN.md.
package acme
