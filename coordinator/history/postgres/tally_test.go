package postgres

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/history"
)

// A slowJournal takes its time to count.
type slowJournal struct {
	takes time.Duration
	asked int
	err   error
}

func (*slowJournal) Through() uint64 { return 0 }
func (*slowJournal) Batch(history.Gap, int, int) (*history.Batch, error) {
	return nil, history.ErrNotHere
}

func (j *slowJournal) Backlog(uint64, int) (history.Backlog, error) {
	j.asked++
	time.Sleep(j.takes)
	return history.Backlog{Facts: j.asked}, j.err
}

// What costs something to count is not counted all the time, however often it is asked
// for, and what costs nothing is counted afresh.
func TestCountingCostsAPartOfTheTimeAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c tally
		quick := &slowJournal{takes: time.Millisecond}
		for i := range 5 {
			assert.Equal(t, i+1, c.count(quick, 0).Facts)
		}
		slow := &slowJournal{takes: 100 * time.Millisecond}
		began := time.Now()
		for time.Since(began) < time.Minute {
			c.count(slow, 0)
			time.Sleep(10 * time.Millisecond)
		}
		assert.LessOrEqual(t, slow.asked, 30, "600 would have been a tenth of a second each")
		assert.GreaterOrEqual(t, slow.asked, 20)
		time.Sleep(time.Minute)
		slow.err = errors.New("damaged")
		last := slow.asked
		assert.Equal(t, last, c.count(slow, 0).Facts, "what was known last")
	})
}
