// Package daybook keeps sums of each day: how the fleet stood, and what was renewed and
// what failed. The leader counts, and the replicated state keeps what it has counted.
//
// DESIGN.md says why things are as they are.
package daybook
