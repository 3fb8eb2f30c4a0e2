// Package linear records what clients of a cluster asked and were answered, and
// checks that there is one order of all operations that explains every answer:
// that the cluster is linearizable. It knows the rules of enrolment tokens, of
// orders and of assignments.
//
// An operation whose outcome its client does not know may have happened at any
// moment since it began, or never. One that was refused without effect is not
// part of the history.
package linear
