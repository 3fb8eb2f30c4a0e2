// Package pass hands a request that only the leader can answer on to the
// leader, and hands its answer back, so that clients may talk to any node.
//
// A [Passer] belongs to the node that got the request, and [Receive] to the
// leader, on the listener that only nodes can reach. In between travels the
// request as it came, with the client's certificate and address beside it: the
// leader judges it as if the client had come to it.
//
// DESIGN.md has the promises and the reasons.
package pass
