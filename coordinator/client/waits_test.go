package client_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

// A read that comes too often is sent again after the pause that it is told; a change is
// not, nor a read that would have to wait for long.
func TestReadsWaitAsTheyAreTold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method string
		pause  time.Duration
		asked  int32
	}{"a read": {http.MethodGet, time.Second, 2}, "a change": {http.MethodPost, time.Second, 1}, "a long pause": {http.MethodGet, time.Hour, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			node := startNode(t, func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) == 1 {
					problem.Write(w, r, problem.Later(wire.CodeRateLimited, "slower", c.pause))
					return
				}
				answers(w, r)
			})
			asking, moves := several(t, node.URL, dead(t))
			var who resource.Identified
			err := asking.Do(t.Context(), c.method, "/api/v1/x", nil, &who)
			assert.Equal(t, c.asked, asked.Load())
			assert.Empty(t, *moves, "another node is no way around it")
			if c.asked == 1 {
				require.ErrorContains(t, err, "slower")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "good", who.Name)
		})
	}
}
