// Package syncpair tests both sides of sync together, in one process: an agent
// with its real store, keys and client, and a coordinator with a real Raft node,
// CA and TLS. It holds tests only; neither side may import the other.
package syncpair
