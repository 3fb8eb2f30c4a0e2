// Package connector is what the coordinator needs of an authority that it orders
// certificates from: one small interface, the words in which authorities of every
// kind are spoken of, and the tools that each connector is made of.
//
// A connector is a dialect. It turns one question into one request, and the answer
// into the words below; it keeps no state, waits for nothing and repeats nothing.
// When to ask, whether to ask again, what is stored and who may ask at all is for
// the engine of orders, which is the same for every authority.
//
// The commercial ones bill each order, and none of them takes an idempotency key. What a connector says about an order that failed decides whether
// another one is placed: see [Error] and [NotPlaced].
package connector
