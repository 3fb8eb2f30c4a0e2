// Package orders takes the orders of agents through slow authorities: those behind
// a [connector.Connector], which may take seconds or days, and a person.
//
// An [Engine] works on the node that leads. What it knows of an order is in the
// replicated state (package fleet), so that another leader goes on where it was: an
// order is claimed there before it is placed, and what an authority says is stored
// before anything else is done with it. No order is placed twice: one of which it is
// not known whether it was placed is looked for at the authority, and where that
// proves nothing it waits for the operator, with all that is known of it.
//
// DESIGN.md tells the states, who writes what when, and what each crash leaves.
package orders
