// Package testca runs real certificate authorities as child processes, for
// tests and for the demo. Each authority is a package below this one; this one
// holds what they share: installing the program, free ports, a process that
// does not outlive its parent.
package testca
