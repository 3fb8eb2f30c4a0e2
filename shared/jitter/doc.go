// Package jitter drives every periodic loop of the project, on both sides.
//
// Hosts that were installed by one script, or that came back after one power
// cut, start their clocks together. With plain tickers they stay together, and
// every minute the coordinator and the certificate authorities meet the whole
// fleet at once. A [JitteredTicker] draws each gap anew, so such a crowd
// disperses by itself; [Spread] gives each member a stable place of its own in
// a period from the start; [Loop] is the select loop that everybody would
// otherwise write, once.
//
// A gap is measured on the monotonic clock, which stands still while a laptop
// or a virtual machine sleeps. A tick therefore means "look now", never "it is
// now such a time": who waits for a moment compares wall time at each tick.
//
// The guard against bare tickers in scripts/ci-guards keeps other packages
// from calling [time.NewTicker], [time.Tick] and [time.Sleep] themselves.
package jitter
