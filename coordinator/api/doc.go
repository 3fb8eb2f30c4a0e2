// Package api is the coordinator's interface for people and their programs:
// HTTP and JSON under /api/v1, described by an OpenAPI document that is made
// from this code.
//
// A request carries an API token with a role. Reads are answered from this
// node's own tables, in one consistent picture; changes are commands to the
// cluster, durable when the answer arrives. Every error is a problem document
// (RFC 9457) with a stable code, the field that is wrong and how to mend it.
//
// DESIGN.md says why things are as they are.
package api
