// Package standing tells how the nodes of a cluster stand: each one reports on
// itself, whichever node is asked gathers the reports of all of them, and judges
// what they come to. It needs no leader and no quorum, since that is when people
// ask.
//
// DESIGN.md has the reasons.
package standing
