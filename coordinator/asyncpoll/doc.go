// Package asyncpoll decides when to ask about work that others do: orders at an
// authority that may take seconds, or days and a person.
//
// A [Pace] turns the state of one order's polling, which its owner keeps, into the
// moment of the next question. A [Queue] holds those moments for any number of
// orders in one goroutine, and asks when they come: within what each account allows
// at a time and in a second, not before a pause that the authority asked for has
// passed, and hardly at all while the authority fails. It knows nothing of what it
// asks.
package asyncpoll
