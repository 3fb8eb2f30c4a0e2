package metrics

import (
	"cmp"
	"slices"
	"sync"

	"github.com/certctl/certctl/agent/renewal"
)

// maxIssuers bounds the issuers that are counted apart.
const maxIssuers = 100

// otherIssuer stands for those beyond them.
const otherIssuer = "other"

// Outcomes counts how renewals and their attempts ended. The zero value is
// ready, and safe for concurrent use.
type Outcomes struct {
	mu     sync.Mutex
	counts map[string]map[renewal.Outcome]uint64 // by issuer
}

// Expect makes issuers appear with zeros before anything has happened, so that
// the first failure is an increase.
func (o *Outcomes) Expect(issuers ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, issuer := range issuers {
		o.of(issuer)
	}
}

// Count counts one end.
func (o *Outcomes) Count(issuer string, outcome renewal.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.of(issuer)[outcome]++
}

// of is the count of an issuer. The caller holds mu.
func (o *Outcomes) of(issuer string) map[renewal.Outcome]uint64 {
	if o.counts == nil {
		o.counts = make(map[string]map[renewal.Outcome]uint64)
	}
	if o.counts[issuer] == nil {
		if len(o.counts) >= maxIssuers {
			issuer = otherIssuer
		}
		if o.counts[issuer] == nil {
			o.counts[issuer] = make(map[renewal.Outcome]uint64)
		}
	}
	return o.counts[issuer]
}

type outcomeCount struct {
	issuer  string
	outcome renewal.Outcome
	n       uint64
}

// list is what was counted, by issuer.
func (o *Outcomes) list() []outcomeCount {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []outcomeCount
	for issuer, counts := range o.counts {
		for _, outcome := range renewal.Outcomes {
			list = append(list, outcomeCount{issuer, outcome, counts[outcome]})
		}
	}
	slices.SortStableFunc(list, func(a, b outcomeCount) int { return cmp.Compare(a.issuer, b.issuer) })
	return list
}
