// Package file puts a certificate and its key into files, and the program that
// reads them to using the new pair: it writes, checks, reloads, and verifies what
// is served, or goes back to what was there before.
//
// DESIGN.md describes the transaction and what a crash at each point leads to.
package file
