// Package sync keeps an agent and its coordinator up to date with each other,
// as package wire describes: what changed in the inventory goes up page by
// page, facts go up in order, orders go up until their results have come down.
//
// Being cut off is a normal state. Nothing here is needed for a renewal at a
// direct issuer, and nothing is lost: what could not be said waits in the
// store. DESIGN.md has the reasons.
package sync
