package metrics

import (
	"bytes"
	"fmt"
	"io"
	gosync "sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// Certificates come, change and go while they are scraped, and the coordinator
// acknowledges it at times of its own: every report is whole, and the last one
// right.
func TestScrapesWhileCertificatesChange(t *testing.T) {
	h := newHost(t)
	const steps = 60
	done := make(chan struct{})
	var scraping gosync.WaitGroup
	for range 2 {
		scraping.Go(func() {
			for {
				var out bytes.Buffer
				if !assert.NoError(t, h.reporter.Write(&out)) {
					return
				}
				families(t, out.String())
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range steps {
		h.put(fmt.Sprintf("c%02d", i), day)
		if i%3 == 0 {
			h.put("www", day, failing)
		}
		if i%4 == 3 {
			h.remove(fmt.Sprintf("c%02d", i-2))
			head, err := h.store.Changes(0, 1)
			require.NoError(t, err)
			require.NoError(t, h.store.SaveSyncState(store.SyncState{AckedRevision: head.Head}))
		}
	}
	close(done)
	scraping.Wait()
	got := values(t, h.text())
	assert.EqualValues(t, steps-steps/4, got["certctl_agent_certificates{state=valid}"])
	assert.EqualValues(t, 1, got["certctl_agent_certificates{state=failed}"])
	for i := range steps {
		_, there := got[fmt.Sprintf("certctl_certificate_served{certificate=c%02d}", i)]
		assert.Equal(t, i%4 != 1, there, i)
	}
}

// Who reads slowly, or not at all, holds up nobody else.
func TestASlowReaderHoldsUpNobody(t *testing.T) {
	h := newHost(t)
	h.put("www", day)
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- h.reporter.Write(writer) }()
	first := make([]byte, 1)
	_, err := reader.Read(first) // the report has begun
	require.NoError(t, err)
	assert.Contains(t, h.text(), `certctl_certificate_served{certificate="www"} 1`)
	h.put("www", 2*day)
	require.NoError(t, h.store.Append(wire.Event{Kind: wire.EventStarted, At: noon}))
	require.NoError(t, reader.Close())
	assert.ErrorIs(t, <-ended, io.ErrClosedPipe)
}
