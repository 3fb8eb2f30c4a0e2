package clock

import (
	"time"

	"golang.org/x/sys/windows"
)

// sinceBoot counts while the machine sleeps or hibernates (GetTickCount64).
func sinceBoot() time.Duration { return windows.DurationSinceBoot() }

// bootID is "": Windows has no name for a run of the machine, so that a restart
// of the agent is treated like one of the machine.
func bootID() string { return "" }
