package api

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
)

// connections name which hosts are cut off, and since when. Signs of life come all
// the time and change nothing of that; so the hosts are gone through when the state
// knows of new ones, which is every few seconds at most, or when the next one would
// be cut off.
type connections struct {
	mu sync.Mutex
	// What the name was made from.
	agents, presence uint64 // versions of the tables
	pause            time.Duration
	from, until      time.Time // zero until: nobody is left to be cut off
	name             [sha256.Size]byte
}

// of is the name for a view at a time. It is the same for the same hosts on every
// node.
func (c *connections) of(view *fleet.View, pause time.Duration, now time.Time) [sha256.Size]byte {
	agents, presence := view.Version(fleet.TableAgents), view.Version(fleet.TablePresence)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.agents == agents && c.presence == presence && c.pause == pause && !c.from.IsZero() &&
		!now.Before(c.from) && (c.until.IsZero() || now.Before(c.until)) {
		return c.name
	}
	at := health.At(now)
	sum := sha256.New()
	view.EachSeen(func(agent *fleet.Agent, seen time.Time) {
		if at.Passed(health.Silent(pause, seen)) {
			nameHost(sum, agent.ID, seen)
		}
	})
	c.agents, c.presence, c.pause, c.from, c.until = agents, presence, pause, now, at.Until
	sum.Sum(c.name[:0])
	return c.name
}

func nameHost(sum hash.Hash, id string, seen time.Time) {
	var buffer [160]byte
	line := binary.BigEndian.AppendUint32(buffer[:0], uint32(len(id))) //nolint:gosec // a short text
	line = append(line, id...)
	sum.Write(binary.BigEndian.AppendUint64(line, uint64(seen.UnixNano()))) //nolint:gosec // a bit pattern, not a number
}

// replicatedSign is the last sign of life of an agent that every node knows of.
func replicatedSign(view *fleet.View, agent *fleet.Agent) time.Time {
	if at := view.LastSeen(agent.ID); at.After(agent.EnrolledAt) {
		return at
	}
	return agent.EnrolledAt
}
