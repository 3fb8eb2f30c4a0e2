package trail

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// Whoever makes up a file cannot have a verification keep, and look through, more than
// what it tells.
func TestWhatIsMissingIsBounded(t *testing.T) {
	v := NewVerifier(1)
	const facts = 10 * maxBreaks
	v.Add(Record{Number: 4 * facts})
	for i := range facts {
		v.Add(Record{Number: uint64(2*i + 2)})
	}
	assert.LessOrEqual(t, len(v.missing), maxBreaks)
	report := v.End()
	assert.Len(t, report.Breaks, maxBreaks)
	assert.GreaterOrEqual(t, report.MoreBreaks, uint64(facts))
}
