package health

import "time"

// patience is how many syncs an agent may miss before it counts as cut off,
// and grace is what one sync may take.
const (
	patience = 3
	grace    = 10 * time.Second
)

// Silent is the last moment at which an agent that is told to sync after a pause, and
// was last seen at a time, is not cut off yet.
func Silent(pause time.Duration, seen time.Time) time.Time { return seen.Add(Silence(pause)) }

// Silence is how long an agent that is told to sync after a pause may be silent before
// it is cut off.
func Silence(pause time.Duration) time.Duration { return patience*pause + grace }

// CutOff reports whether an agent that is told to sync after a pause, and was
// last seen at a time, is cut off now.
func CutOff(pause time.Duration, seen, now time.Time) bool { return now.After(Silent(pause, seen)) }
