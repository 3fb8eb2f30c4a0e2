// Package desired computes which assignments each agent has, and what they are
// on its host: the selector matches the agent's labels, the placeholders have
// values, and the names are allowed by its enrolment. What does not pass is not
// sent, and said.
//
// A [Planner] remembers enough that a sync costs two look-ups while nothing has
// changed. After a change of the assignments, each set of labels is matched
// again once, and only agents whose assignments changed by it are computed anew.
package desired
