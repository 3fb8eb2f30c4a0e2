package renewal

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
)

func TestEveryClassHasOneAct(t *testing.T) {
	var classes []issuer.Class
	for _, a := range acts {
		classes = append(classes, a.class)
		assert.Equal(t, a, actFor(a.class))
		assert.NotContains(t, a.class.String(), "class(")
		if a.drops {
			assert.True(t, a.counts, "%s: what ends an order is an attempt", a.class)
		}
		if a.attention {
			assert.True(t, a.counts, "%s: what a person is asked about is an attempt", a.class)
		}
	}
	assert.Equal(t, issuer.Classes(), classes)
	assert.Equal(t, acts[0], actFor(issuer.Class(99)))
	assert.Equal(t, issuer.ClassRetry, acts[0].class)
}

// The reference prints the table, and nothing else than the table.
func TestTheReferencePrintsTheTable(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/renewal.md")
	require.NoError(t, err)
	var printed, want []string
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "| `") {
			printed = append(printed, strings.TrimSpace(line))
		}
	}
	for _, a := range acts {
		want = append(want, a.row())
	}
	assert.Equal(t, want, printed, "docs/reference/renewal.md has to print:\n%s", strings.Join(want, "\n"))
}

// What Let's Encrypt bears of one account and name: five failed validations in
// an hour.
func TestFailedOrdersStayBelowPublicLimits(t *testing.T) {
	var failures []time.Duration
	at := time.Duration(0)
	for attempt := 1; attempt <= 20; attempt++ {
		failures = append(failures, at)
		at += orderPace.pause(attempt, 0, nil, 0, noon, 0) // the shortest that jitter makes
	}
	for n, first := range failures {
		within := slices.IndexFunc(failures[n:], func(f time.Duration) bool { return f >= first+time.Hour })
		if within < 0 {
			break
		}
		assert.LessOrEqual(t, within, 5, "failures from the one at %v on", first)
	}
}
