package cluster

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// repeatAfter is how long what Raft says again and again is counted instead of
	// logged. While a member does not answer, Raft says so several times a second.
	repeatAfter = time.Minute
	// maxRepeats bounds the messages that are remembered.
	maxRepeats = 256
)

// chatter are the messages of the level Info that Raft repeats while there is no
// leader. The others of that level come once for what they tell.
var chatter = map[string]bool{"entering candidate state": true, "duplicate requestVote for same term": true}

// repeats are what Raft said lately. The zero value is ready.
type repeats struct {
	mu   sync.Mutex
	said map[string]*repeat // guarded by mu; by message and whom it is about
}

type repeat struct {
	told  time.Time // when it was logged last
	again int       // since then
}

// note reports whether a message is to be logged, and how often it was not since
// the last time.
func (r *repeats) note(level hclog.Level, msg string, args []any) (again int, tell bool) {
	if level < hclog.Warn && !chatter[msg] {
		return 0, true
	}
	key := msg
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "peer", "server-id", "target", "id":
			key += fmt.Sprint(" ", args[i+1])
		}
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	before, known := r.said[key]
	if known && now.Sub(before.told) < repeatAfter {
		before.again++
		return 0, false
	}
	if known {
		again = before.again
	}
	if r.said == nil || len(r.said) >= maxRepeats && !known {
		r.said = map[string]*repeat{}
	}
	r.said[key] = &repeat{told: now}
	return again, true
}
