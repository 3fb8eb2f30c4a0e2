package report_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/report"
)

// What is counted beforehand is what a report counts; what was not counted to its end is
// not kept.
func TestCountingBeforehand(t *testing.T) {
	w := large(t, 200, 3)
	want := w.ask(w.question())
	for name, cancelled := range map[string]bool{"whole": false, "broken off": true} {
		ctx, cancel := context.WithCancel(t.Context())
		if cancelled {
			cancel()
		}
		counter, q := new(report.Counter), w.question()
		err := counter.Prepare(ctx, q.View, q.Clock.Now)
		if cancelled {
			require.ErrorIs(t, err, context.Canceled, name)
		} else {
			require.NoError(t, err, name)
		}
		cancel()
		got, err := counter.Report(q)
		require.NoError(t, err)
		assert.Equal(t, want.Fleet, got.Fleet, name)
	}
}
