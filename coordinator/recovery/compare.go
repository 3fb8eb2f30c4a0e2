package recovery

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
)

// Comparison says which of the surviving nodes to recover from, and what is lost
// by it.
type Comparison struct {
	ClusterID string `json:"cluster_id,omitempty"`
	// Voters are those of the newest configuration, and Missing those of them of
	// which there is no report.
	Voters  []string `json:"voters"`
	Missing []string `json:"missing"`
	// Majority is how many voters have to run for the cluster to go on by itself.
	Majority int `json:"majority"`
	// Quorum says that enough of them have survived: start them, and recover
	// nothing.
	Quorum bool `json:"quorum"`
	// Newest has the newest log, and Choose is the node to recover from: the
	// newest whose state can be made. "" if there is none.
	Newest string `json:"newest"`
	Choose string `json:"choose"`
	// KnownCommitted is the newest entry that a survivor knows to be committed.
	KnownCommitted uint64 `json:"known_committed"`
	// Kept are the entries of the chosen node behind it: they were acknowledged or
	// not, and count as committed after a recovery.
	Kept Range `json:"kept"`
	// Lost says what may be lost that was acknowledged.
	Lost Loss `json:"lost"`
	// Others are the other survivors against the chosen one.
	Others   []Difference `json:"others"`
	Warnings []string     `json:"warnings"`
}

// Loss is what may be lost of what was acknowledged.
type Loss struct {
	// Possible is false if every acknowledged change is on a survivor that is
	// chosen.
	Possible bool `json:"possible"`
	// Sure is an entry up to which everything that was acknowledged is kept, whatever
	// the nodes that are missing have done.
	Sure uint64 `json:"sure"`
	// After is the newest entry that is kept, and Since its time: what was
	// acknowledged later is lost. Entries behind Sure are kept too, but if the
	// missing nodes had a leader of their own meanwhile, what it acknowledged there
	// was something else.
	After uint64    `json:"after"`
	Since time.Time `json:"since,omitzero"`
	Why   string    `json:"why"`
}

// Difference is one survivor against the chosen one.
type Difference struct {
	NodeID string `json:"node_id"`
	// Relation is same, prefix (all of its log is in the chosen one), extends (all
	// of the chosen one is in it) or diverged.
	Relation string `json:"relation"`
	// Common is the newest entry that both have.
	Common     uint64 `json:"common"`
	OnlyChosen Range  `json:"only_chosen"`
	OnlyOther  Range  `json:"only_other"`
}

// Relations of two logs.
const (
	RelationSame     = "same"
	RelationPrefix   = "prefix"
	RelationExtends  = "extends"
	RelationDiverged = "diverged"
)

// Range is a run of entries, and what is in them as far as the report tells.
type Range struct {
	Entries uint64         `json:"entries"`
	From    uint64         `json:"from,omitempty"`
	To      uint64         `json:"to,omitempty"`
	Oldest  time.Time      `json:"oldest,omitzero"`
	Newest  time.Time      `json:"newest,omitzero"`
	Kinds   map[string]int `json:"kinds,omitempty"`
	Agents  []string       `json:"agents,omitempty"`
	// Undescribed counts the entries that the report says nothing about.
	Undescribed uint64 `json:"undescribed,omitempty"`
}

// maxAgents bounds the agents that a range names.
const maxAgents = 100

// Compare compares the reports of all surviving nodes. It decides nothing that
// Raft would not: the newest log is the one with the higher term in its last
// entry, and among equals the longer one; it has every acknowledged entry that
// any survivor has.
func Compare(reports []*Report) (*Comparison, error) {
	if len(reports) == 0 {
		return nil, errors.New("there is nothing to compare: give the report of each surviving node")
	}
	c := &Comparison{Voters: []string{}, Missing: []string{}, Others: []Difference{}, Warnings: []string{}}
	byID := map[string]*Report{}
	for _, r := range reports {
		if byID[r.NodeID] != nil {
			return nil, fmt.Errorf("there are two reports of the node %s: give one of each", r.NodeID)
		}
		byID[r.NodeID] = r
		switch {
		case r.ClusterID == "":
		case c.ClusterID == "":
			c.ClusterID = r.ClusterID
		case c.ClusterID != r.ClusterID:
			return nil, fmt.Errorf("the node %s is of the cluster %s, another one of %s: compare the nodes of one cluster", r.NodeID, r.ClusterID, c.ClusterID)
		}
	}
	ordered := slices.Clone(reports)
	slices.SortStableFunc(ordered, func(a, b *Report) int {
		return cmp.Or(cmp.Compare(b.LastTerm, a.LastTerm), cmp.Compare(b.LastIndex, a.LastIndex),
			cmp.Compare(len(a.StateProblem), len(b.StateProblem)), cmp.Compare(a.NodeID, b.NodeID))
	})
	c.Newest = ordered[0].NodeID
	var chosen *Report
	for _, r := range ordered {
		c.KnownCommitted = max(c.KnownCommitted, r.Committed)
		c.complain(r)
		if chosen == nil && r.StateProblem == "" {
			chosen = r
		}
	}
	c.count(ordered, byID)
	if chosen == nil {
		c.Warnings = append(c.Warnings, "no survivor can be recovered from: restore a snapshot to a new cluster")
		return c, nil
	}
	c.Choose = chosen.NodeID
	c.Kept = describe(chosen, c.KnownCommitted+1, chosen.LastIndex)
	for _, r := range ordered {
		if r != chosen {
			c.Others = append(c.Others, c.differ(chosen, r))
		}
	}
	c.Lost = c.loss(chosen, ordered[0])
	return c, nil
}

func (c *Comparison) complain(r *Report) {
	for _, problem := range []struct{ what, text string }{
		{"its state cannot be made: ", r.StateProblem}, {"its journal cannot be opened: ", r.JournalProblem}, {"its seal key: ", r.SealKeyProblem},
	} {
		if problem.text != "" {
			c.Warnings = append(c.Warnings, r.NodeID+": "+problem.what+problem.text)
		}
	}
}

// count finds the voters of the newest configuration that any survivor has.
func (c *Comparison) count(ordered []*Report, byID map[string]*Report) {
	newest := ordered[0] // by Raft's rule, and so is its configuration
	survivors := 0
	for _, server := range newest.Configuration {
		if !server.Voter {
			continue
		}
		c.Voters = append(c.Voters, server.ID)
		if byID[server.ID] == nil {
			c.Missing = append(c.Missing, server.ID)
		} else {
			survivors++
		}
	}
	for _, r := range ordered {
		if !slices.Contains(c.Voters, r.NodeID) {
			c.Warnings = append(c.Warnings, r.NodeID+": it is no voter of the newest configuration")
		}
	}
	c.Majority = len(c.Voters)/2 + 1
	c.Quorum = len(c.Voters) > 0 && survivors >= c.Majority
}

func (c *Comparison) loss(chosen, newest *Report) Loss {
	// A log that is the newest by Raft's rule has all that is known to be committed.
	l := Loss{Sure: c.KnownCommitted, After: chosen.LastIndex, Since: timeOf(chosen)}
	switch {
	case chosen != newest:
		l.Possible, l.Sure = true, chosen.Committed
		l.Why = fmt.Sprintf("the newest log, that of %s, cannot be used", newest.NodeID)
	case len(c.Missing) < c.Majority:
		l.Sure = l.After
		l.Why = "every acknowledged change was on a majority of the voters, and too few are missing to have had one without a survivor"
	default:
		l.Possible = true
		l.Why = fmt.Sprintf("%d of %d voters are missing, which are enough to have acknowledged changes that no survivor has", len(c.Missing), len(c.Voters))
	}
	return l
}

// timeOf is when a node's newest entry was written.
func timeOf(r *Report) time.Time {
	if n := len(r.Entries); n > 0 {
		return r.Entries[n-1].Time
	}
	if len(r.Snapshots) > 0 {
		return r.Snapshots[0].Time
	}
	return time.Time{}
}

// differ compares a survivor with the chosen one. Two logs with an entry of the
// same index and term are the same up to there (Raft's log matching).
func (c *Comparison) differ(chosen, other *Report) Difference {
	common := min(chosen.LastIndex, other.LastIndex)
	// What both know to be committed is the same.
	for same := min(chosen.Committed, other.Committed); common > same; {
		a, knownA := runAt(chosen, common)
		b, knownB := runAt(other, common)
		if !knownA || !knownB || a.Term == b.Term {
			break // what is not in a log any more is covered by its snapshot, and committed
		}
		common = max(a.From, b.From) - 1 // all of these differ
	}
	d := Difference{
		NodeID: other.NodeID, Common: common,
		OnlyChosen: describe(chosen, common+1, chosen.LastIndex), OnlyOther: describe(other, common+1, other.LastIndex),
	}
	switch {
	case d.OnlyChosen.Entries == 0 && d.OnlyOther.Entries == 0:
		d.Relation = RelationSame
	case d.OnlyOther.Entries == 0:
		d.Relation = RelationPrefix
	case d.OnlyChosen.Entries == 0:
		d.Relation = RelationExtends
	default:
		d.Relation = RelationDiverged
	}
	if index, ok := mismatch(chosen, other, common); ok {
		c.Warnings = append(c.Warnings, fmt.Sprintf(
			"%s and %s have the entry %d of the same term with different content: one of their disks has changed it", chosen.NodeID, other.NodeID, index))
	}
	return d
}

// runAt is the run of terms that an entry is in.
func runAt(r *Report, index uint64) (run cluster.TermRun, ok bool) {
	for _, run := range r.Terms {
		if index >= run.From && index <= run.To {
			return run, true
		}
	}
	for _, snapshot := range r.Snapshots {
		if snapshot.Index == index {
			return cluster.TermRun{Term: snapshot.Term, From: index, To: index}, true
		}
	}
	return cluster.TermRun{}, false
}

// mismatch finds an entry that both should have alike and do not.
func mismatch(a, b *Report, through uint64) (uint64, bool) {
	digests := map[uint64]string{}
	terms := map[uint64]uint64{}
	for _, entry := range a.Entries {
		digests[entry.Index], terms[entry.Index] = entry.Digest, entry.Term
	}
	for _, entry := range b.Entries {
		digest, ok := digests[entry.Index]
		if ok && entry.Index <= through && terms[entry.Index] == entry.Term && digest != entry.Digest {
			return entry.Index, true
		}
	}
	return 0, false
}

func describe(r *Report, from, to uint64) Range {
	if from > to {
		return Range{}
	}
	out := Range{Entries: to - from + 1, From: from, To: to, Kinds: map[string]int{}}
	described := uint64(0)
	for _, entry := range r.Entries {
		if entry.Index < from || entry.Index > to {
			continue
		}
		described++
		if out.Oldest.IsZero() || entry.Time.Before(out.Oldest) {
			out.Oldest = entry.Time
		}
		if entry.Time.After(out.Newest) {
			out.Newest = entry.Time
		}
		if len(entry.Kinds) == 0 {
			out.Kinds[entry.Type]++
		}
		for kind, n := range entry.Kinds {
			out.Kinds[kind] += n
		}
		for _, agent := range entry.Agents {
			if len(out.Agents) < maxAgents && !slices.Contains(out.Agents, agent) {
				out.Agents = append(out.Agents, agent)
			}
		}
	}
	out.Undescribed = out.Entries - described
	return out
}
