package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/wire"
)

// A removal that would lose a part of the history says what, and how to keep it or
// to lose it.
func TestRemovalsThatLoseHistoryAreRefused(t *testing.T) {
	assert.Nil(t, losesHistory("c1", history.Loss{Answers: true, Silent: []string{"c2"}}))
	p := losesHistory("c1", history.Loss{Answers: true, Entries: 7})
	require.NotNil(t, p)
	assert.Equal(t, http.StatusConflict, p.Status)
	assert.Equal(t, wire.CodeConflict, p.Code)
	assert.Contains(t, p.Detail, "the facts of 7 log entries that c1 has")
	assert.Contains(t, p.Mend, "cluster health")
	assert.Contains(t, p.Mend, "certctl cluster remove c1 --force")
	p = losesHistory("c1", history.Loss{Entries: 7, Silent: []string{"c2", "c3"}})
	require.NotNil(t, p)
	assert.Contains(t, p.Detail, "c1, which does not answer, may")
	assert.Contains(t, p.Detail, "do not answer: c2, c3")
	assert.Contains(t, p.Mend, "start c1")
}
