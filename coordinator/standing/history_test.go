package standing

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/history"
)

func (p *picture) lack(i int, gaps ...GapReport) {
	p.answers[i].Report.Journal.Gaps, p.answers[i].Report.Journal.Missing = len(gaps), gaps
}

// TestHistoryLost says what goes with a member, by what the others have.
func TestHistoryLost(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(p *picture)
		want  history.Loss
	}{
		"all have all":                {func(*picture) {}, history.Loss{Answers: true}},
		"another one has it too":      {func(p *picture) { p.lack(1, GapReport{1, 500}) }, history.Loss{Answers: true}},
		"only this one has it":        {func(p *picture) { p.lack(1, GapReport{1, 500}); p.lack(2, GapReport{1, 300}, GapReport{400, 450}) }, history.Loss{Answers: true, Entries: 351}},
		"the others have it together": {func(p *picture) { p.lack(1, GapReport{1, 300}); p.lack(2, GapReport{301, 500}) }, history.Loss{Answers: true}},
		"nobody has it": {func(p *picture) {
			p.lack(0, GapReport{1, 300})
			p.lack(1, GapReport{1, 300})
			p.lack(2, GapReport{1, 300})
		}, history.Loss{Answers: true}},
		"it does not answer":            {func(p *picture) { p.lose(0) }, history.Loss{}},
		"it does not answer, and may":   {func(p *picture) { p.lose(0); p.lack(1, GapReport{1, 300}); p.lack(2, GapReport{1, 300}) }, history.Loss{Entries: 300}},
		"another one does not answer":   {func(p *picture) { p.lose(1); p.lack(2, GapReport{1, 300}) }, history.Loss{Answers: true, Entries: 300, Silent: []string{"b"}}},
		"the others have joined now":    {func(p *picture) { p.answers[1].Report.Raft.LastIndex = 0; p.answers[2].Report.Raft.LastIndex = 0 }, history.Loss{Answers: true, Entries: 990}},
		"one of them lags, and one not": {func(p *picture) { p.answers[1].Report.Raft.LastIndex = 980 }, history.Loss{Answers: true}},
		"an earlier version does not say what it lacks": {func(p *picture) {
			for i := 1; i < 3; i++ {
				p.answers[i].Report.Journal.Gaps, p.answers[i].Report.Journal.Through = 1, 700
			}
		}, history.Loss{Answers: true, Entries: 700}},
	} {
		t.Run(name, func(t *testing.T) {
			p := sound(3)
			p.begun = 990
			c.spoil(p)
			assert.Equal(t, c.want, p.lostWith("a"))
			assert.Zero(t, p.lostWith("none"))
			err := mayForget("a", p.lostWith("a"))
			if c.want.Entries == 0 {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, fmt.Sprintf("the facts of %d log entries", c.want.Entries))
			for _, id := range c.want.Silent {
				assert.ErrorContains(t, err, "do not answer: "+id)
			}
		})
	}
}

func TestMembersTellWhatTheirHistoryLacks(t *testing.T) {
	p := sound(3)
	p.begun = 990
	for i := range p.answers {
		p.answers[i].Report.Journal.Through = 1000
	}
	p.lack(1, GapReport{1, 500}, GapReport{991, 1000})
	members := p.members()
	assert.Zero(t, members.Items[0].HistoryMissing)
	assert.EqualValues(t, 510, members.Items[1].HistoryMissing)
	h := p.health()
	assert.False(t, h.Healthy)
	assert.Contains(t, h.Problems[0].Text, "lacks the facts of 510 log entries")
	assert.Equal(t, resource.SeverityWarning, h.Problems[0].Severity)
}
