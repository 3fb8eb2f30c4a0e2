package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Due looks at what is due and at the one key after it, however many
// certificates there are.
func TestDueCostsWhatIsDue(t *testing.T) {
	for _, n := range []int{100, 1_000, 10_000, 100_000} {
		s := openTest(t, Options{})
		schedule(t, s, n, 10)
		for _, limit := range []int{0, 10, 11, 1_000_000} {
			before := s.Looked()
			names, err := s.Due(epoch, limit)
			require.NoError(t, err)
			assert.Len(t, names, 10)
			assert.EqualValues(t, 11, s.Looked()-before, "10 due of %d, at most %d", n, limit)
		}
		before := s.Looked()
		names, err := s.Due(epoch, 3)
		require.NoError(t, err)
		assert.Len(t, names, 3)
		assert.EqualValues(t, 4, s.Looked()-before, "3 of 10 due of %d", n)
	}
}

// schedule writes the schedule of n certificates, due of which are due at epoch,
// and nothing else of them: what Due must not look at need not be there.
func schedule(t *testing.T, s *Store, n, due int) {
	t.Helper()
	require.NoError(t, s.write(commitCertificates, func(c *change) error {
		for i := range n {
			at := epoch.Add(time.Duration(i-due+1) * time.Minute) // the last one that is due is due just now
			if err := c.put(bucketSchedule, momentKey(at, fmt.Sprintf("certificate-%06d", i)), nil); err != nil {
				return err
			}
		}
		return nil
	}))
}
