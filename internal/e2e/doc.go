// Package e2e holds the tests that run the programs as a user does: the real
// binaries, a real ACME authority, a real nginx, and kill -9. They look at what
// is served on the wire, at what the programs answer, and at what the
// authorities have on record, never at log texts.
//
// The tests need Linux, for they rely on /proc, on children that die with their
// parent, and on user ids. They install Pebble and build the binaries
// themselves; nginx has to be there. Everything listens on 127.0.0.1, or in
// network namespaces of the test (internal/testnet), and all state lies in
// directories of the test.
package e2e
