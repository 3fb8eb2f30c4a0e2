// Package systemd holds the units of certctl's services.
//
// The unit files are what packages ship, word for word, and what the verb
// install writes, with another command line in ExecStart=: there is no second
// text that could differ.
package systemd

import _ "embed" // for the units

// Agent is the unit of certctl-agent.
//
//go:embed certctl-agent.service
var Agent string

// Coordinator is the unit of certctl-coordinator.
//
//go:embed certctl-coordinator.service
var Coordinator string
