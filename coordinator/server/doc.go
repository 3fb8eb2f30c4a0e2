// Package server is the coordinator's front door: one HTTPS port for agents, the
// API and health checks, with a certificate from the built-in CA that it renews
// by itself, and what is done once at the first start, before the door opens.
//
// It knows nothing of what the handlers behind it do. It gives each request an
// id, keeps each kind of request within its own limit, answers panics and
// unknown paths with problem documents, and drains what runs when it stops.
package server
