package standing

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/history"
)

// GapReport is a range of log indexes, with both ends.
type GapReport struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// maxGaps bounds the ranges that a report lists.
const maxGaps = 1000

func gapReports(gaps history.Gaps) (list []GapReport) {
	for _, gap := range cluster.CoarseGaps(gaps, maxGaps) {
		list = append(list, GapReport(gap))
	}
	return list
}

// skipped is what the node got a snapshot in place of, and has not from others yet.
func (r *Report) skipped() history.Gaps {
	var list []history.Gap
	for _, gap := range r.Journal.Missing {
		list = append(list, history.Gap(gap))
	}
	if r.Journal.Gaps > 0 && len(list) == 0 {
		// One of an earlier version does not say what it lacks.
		list = append(list, history.Gap{From: 1, To: r.Journal.Through})
	}
	return history.Union(list...)
}

// missing is what the node's journal lacks of the facts up to a log index: what it
// skipped, and what it has not heard of.
func (r *Report) missing(through uint64) history.Gaps {
	unheard := history.Gap{From: r.Raft.LastIndex + 1, To: through}
	return history.Union(append(r.skipped(), unheard)...).And(history.Gaps{{From: 1, To: through}})
}

// lost is what no member that answers has of the history, and silent are the members
// that may have it.
func (p *picture) lost() (gaps history.Gaps, silent []string) {
	return p.missingFrom(func(string) bool { return true })
}

// missingFrom is what none of some members has of the history, and which of them do
// not say.
func (p *picture) missingFrom(counts func(id string) bool) (gaps history.Gaps, silent []string) {
	gaps = history.Gaps{{From: 1, To: p.begun}}
	answered := false
	for _, a := range p.answers {
		switch {
		case !counts(a.Member.ID):
		case a.Report == nil:
			silent = append(silent, a.Member.ID)
		default:
			answered = true
			gaps = gaps.And(a.Report.missing(p.begun))
		}
	}
	if !answered {
		return nil, silent // there is nobody to compare with
	}
	return gaps, silent
}

// HistoryLost asks the members what would be lost of the history without one of
// them. What nobody has is lost already.
func (s *Service) HistoryLost(ctx context.Context, id string) history.Loss {
	return s.look(ctx).lostWith(id)
}

// MayForget says what speaks against removing a member that is dead without asking
// anybody; it is a cluster.Config's.
func (s *Service) MayForget(ctx context.Context, id string) error {
	return mayForget(id, s.HistoryLost(ctx, id))
}

func mayForget(id string, loss history.Loss) error {
	if loss.Entries == 0 {
		return nil
	}
	err := fmt.Errorf("no other member has the facts of %d log entries, and %s may: start it until the others have them, or remove it with \"certctl cluster remove %s --force\"",
		loss.Entries, id, id)
	if len(loss.Silent) > 0 {
		err = fmt.Errorf("%w; of the others, these do not answer: %s", err, strings.Join(loss.Silent, ", "))
	}
	return err
}

func (p *picture) lostWith(id string) (loss history.Loss) {
	i := slices.IndexFunc(p.answers, func(a Answer) bool { return a.Member.ID == id })
	if i < 0 {
		return loss // a record of no member
	}
	gaps, silent := p.missingFrom(func(other string) bool { return other != id })
	if report := p.answers[i].Report; report != nil {
		loss.Answers = true
		gaps = gaps.Minus(report.missing(p.begun))
	}
	loss.Entries, loss.Silent = gaps.Count(), silent
	return loss
}
