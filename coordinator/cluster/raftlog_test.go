package cluster

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
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
