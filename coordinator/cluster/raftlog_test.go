package cluster

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRaftLogReadsLikeTheRest(t *testing.T) {
	var out bytes.Buffer
	log := newRaftLogger(slog.New(slog.NewJSONHandler(&out, nil)))
	log.Info("initial configuration", "servers", hclog.Fmt("%+v", []int{1, 2}), "state", raft.Leader)
	assert.Contains(t, out.String(), `"servers":"[1 2]"`)
	assert.Contains(t, out.String(), `"state":"Leader"`)

	out.Reset()
	log.Error("failed to take snapshot", "error", raft.ErrNothingNewToSnapshot)
	assert.Empty(t, out.String(), "that the last snapshot is good enough is no failure")

	log.Error("failed to take snapshot", "error", assert.AnError)
	assert.Contains(t, out.String(), `"level":"ERROR"`)
	assert.Contains(t, out.String(), `"err":"`+assert.AnError.Error())
	assert.Contains(t, out.String(), `"component":"raft"`)
}

// What Raft says several times a second while a member is away is said once a
// minute, of each member by itself, and counted.
func TestRaftRepeatsItselfOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := newRaftLogger(slog.New(slog.NewJSONHandler(&out, nil)))
		lines := func() int { return strings.Count(out.String(), "\n") }
		for range 240 { // a minute
			for _, peer := range []string{"b", "c"} {
				log.Error("failed to heartbeat to", "peer", peer, "backoff time", "10ms", "error", assert.AnError)
			}
			log.Named("part").With().Info("entering candidate state", "term", 7)
			<-time.After(250 * time.Millisecond)
		}
		require.Equal(t, 3, lines(), out.String())
		log.Error("failed to heartbeat to", "peer", "b", "error", assert.AnError)
		require.Equal(t, 4, lines())
		assert.Contains(t, out.String(), `"repeated":239`)

		out.Reset()
		log.Info("election won", "term", 8)
		log.Info("election won", "term", 9)
		log.Error("failed to take snapshot", "error", assert.AnError)
		log.Error("failed to load snapshot", "id", "1", "error", assert.AnError)
		log.Error("failed to load snapshot", "id", "2", "error", assert.AnError)
		assert.Equal(t, 5, lines(), "what differs is said")
		for i := range 10 * maxRepeats {
			log.Warn("failed to contact", "server-id", i)
		}
		assert.LessOrEqual(t, len(log.(*raftLogger).repeats.said), maxRepeats)
	})
}
