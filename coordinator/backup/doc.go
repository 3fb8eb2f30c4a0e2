// Package backup writes the state of a node into snapshot files: for whoever
// asks, and by itself from time to time, into a directory of which it keeps the
// newest.
//
// DESIGN.md holds the promises and the reasons.
package backup
