// Package clock is the agent's trusted time: what every decision of the agent
// goes by instead of the wall clock, which somebody may set wrong.
//
// Trusted time is the wall clock plus a correction. The correction is zero on a
// host whose clock is right. It comes from authenticated servers that tell the
// time with their answers, and it outlives a step of the wall clock, because a
// second clock, which counts the time since the start of the machine, does not
// step. Across restarts a mark in the store says what time it was at least.
// DESIGN.md beside this file gives the rules and their reasons.
package clock
