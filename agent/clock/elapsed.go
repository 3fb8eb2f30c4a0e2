package clock

import "time"

var start = time.Now()

// sinceStart is the monotonic clock, which may stand still while the machine
// sleeps: a sleep then looks like a step of the wall clock.
func sinceStart() time.Duration { return time.Since(start) }
