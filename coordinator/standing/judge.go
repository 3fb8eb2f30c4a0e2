package standing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/fleet"
)

// What is still well.
const (
	maxLag       = 2000             // entries; a busy cluster stores some hundreds while the nodes are asked
	maxSilence   = 10 * time.Second // since a node heard of its leader
	maxBacklog   = 5 * time.Minute  // for which facts wait for the database
	maxClock     = 2 * time.Second  // between two clocks, beyond what is uncertain
	minLifetime  = 7 * 24 * time.Hour
	minDisk      = 1 << 30 // octets
	minDiskShare = 20      // one part in so many
)

// Codes of problems.
const (
	CodeNoLeader      = "no_leader"
	CodeNoQuorum      = "no_quorum"
	CodeNoMargin      = "no_margin"
	CodeEvenVoters    = "even_voters"
	CodeUnreachable   = "unreachable"
	CodeCutOff        = "cut_off"
	CodeFailing       = "failing"
	CodeBehind        = "behind"
	CodeNoVote        = "no_vote"
	CodeVersions      = "versions"
	CodeClock         = "clock"
	CodeCertificate   = "certificate"
	CodeDisk          = "disk"
	CodeJournal       = "journal"
	CodeHistory       = "history"
	CodeBackup        = "backup"
	CodeDatabase      = "database"
	CodeStranger      = "stranger"
	CodeConfiguration = "configuration"
)

// picture is what is judged: what the members answered, and what the replicated
// state has about them.
type picture struct {
	self    string // the node that judges
	now     time.Time
	index   uint64 // of the configuration
	begun   uint64 // what this node knew to be stored before it asked
	answers []Answer
	nodes   map[string]*fleet.ClusterNode
	ca      *fleet.ClusterCA // nil: there is none
}

// leader is the id of the member that leads: one that says so itself, in the
// newest term, or the one that most of the others have heard of lately.
func (p *picture) leader() string {
	var id string
	var term uint64
	votes := map[string]int{}
	for _, a := range p.answers {
		switch {
		case a.Report == nil:
		case a.Report.Raft.Elected && a.Report.Raft.Term >= term:
			id, term = a.Member.ID, a.Report.Raft.Term
		case a.Report.Raft.Leader != "" && a.Report.silence() <= maxSilence:
			votes[a.Report.Raft.Leader]++
		}
	}
	if id != "" {
		return id
	}
	for candidate, n := range votes {
		if n > votes[id] || n == votes[id] && candidate < id {
			id = candidate
		}
	}
	return id
}

// silence is how long the node has heard nothing of a leader.
func (r *Report) silence() time.Duration {
	return time.Duration(r.Raft.SilenceSeconds * float64(time.Second))
}

// newest is the last entry that any member knows to be stored.
func (p *picture) newest() (index uint64) {
	for _, a := range p.answers {
		if a.Report != nil {
			index = max(index, a.Report.Raft.CommitIndex)
		}
	}
	return index
}

// members is the list of the members with their health.
func (p *picture) members() resource.Members {
	out := resource.Members{
		AnsweredBy: p.self, Time: p.now.UTC(), Leader: p.leader(), ConfigurationIndex: p.index,
		Items: make([]resource.Member, 0, len(p.answers)),
	}
	newest := p.newest()
	for _, a := range p.answers {
		m := resource.Member{ID: a.Member.ID, Address: a.Member.Address, Level: 1, Voter: a.Member.Voter, Leader: a.Member.ID == out.Leader}
		if node, ok := p.nodes[m.ID]; ok {
			m.URL, m.Version, m.Level = node.URL, node.Version, node.Level
			m.CertificateNotAfter, m.JoinedAt = node.CertificateNotAfter.UTC(), node.JoinedAt.UTC()
		}
		m.Health, m.Reason = healthOf(&a, out.Leader, newest)
		if r := a.Report; r != nil {
			m.Version, m.Level = r.Version, r.Level
			m.AppliedIndex = r.Raft.AppliedIndex
			m.HistoryMissing = r.skipped().Count()
			m.AppliedLag = newest - min(newest, r.Raft.AppliedIndex)
			if !r.Raft.Elected {
				m.LeaderHeardSeconds = r.silence().Seconds()
			}
			m.ClockAheadSeconds = a.Ahead.Seconds()
			if !r.CertificateNotAfter.IsZero() {
				m.CertificateNotAfter = r.CertificateNotAfter.UTC()
			}
		}
		out.Items = append(out.Items, m)
	}
	slices.SortFunc(out.Items, func(a, b resource.Member) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func healthOf(a *Answer, leader string, newest uint64) (resource.MemberHealth, string) {
	r := a.Report
	switch {
	case r == nil:
		return resource.MemberUnreachable, text(a.Err)
	case r.Readiness.Failure != "":
		return resource.MemberFailing, r.Readiness.Failure
	case r.Readiness.Journal != "":
		return resource.MemberFailing, fmt.Sprintf("its journal cannot be written (%s); changes are stored in the log, and will wait when too many facts are not in the journal", r.Readiness.Journal)
	case r.silence() > maxSilence && leader == "":
		return resource.MemberLeaderless, "there is no leader that it could hear"
	case r.silence() > maxSilence:
		return resource.MemberCutOff, fmt.Sprintf("it has heard no leader for %s", r.silence().Round(time.Second))
	case newest > r.Raft.AppliedIndex && newest-r.Raft.AppliedIndex > maxLag:
		return resource.MemberBehind, fmt.Sprintf("it has still to apply %d entries", newest-r.Raft.AppliedIndex)
	case !r.Readiness.Running:
		return resource.MemberFailing, "it is starting or stopping"
	}
	return resource.MemberHealthy, ""
}

// works says whether a voter counts: one that is behind does, and one that waits
// for a leader.
func works(h resource.MemberHealth) bool {
	return h == resource.MemberHealthy || h == resource.MemberBehind || h == resource.MemberLeaderless
}

// storing is how many voters take part in what is stored: besides those that work,
// those of which the journal alone cannot be written.
func (p *picture) storing(working int) int {
	for _, a := range p.answers {
		if r := a.Report; a.Member.Voter && r != nil && r.Readiness.Failure == "" && r.Readiness.Journal != "" {
			working++
		}
	}
	return working
}

// health judges the cluster as a whole.
func (p *picture) health() resource.ClusterHealth {
	members := p.members()
	h := resource.ClusterHealth{
		AnsweredBy: p.self, Time: members.Time, Leader: members.Leader, Problems: []resource.ClusterProblem{}, CARotation: p.rotation(),
	}
	for _, m := range members.Items {
		if m.Voter {
			h.Voters++
			if works(m.Health) {
				h.VotersWorking++
			}
		}
	}
	h.Quorum = h.Voters/2 + 1
	h.FailureTolerance = max(0, h.VotersWorking-h.Quorum)
	found := findings{self: p.self, quorum: h.VotersWorking >= h.Quorum}
	found.cluster(&h, p.storing(h.VotersWorking))
	for i := range members.Items {
		found.member(&members.Items[i])
	}
	for _, a := range p.answers {
		if a.Report != nil {
			found.node(&a, p)
		}
	}
	found.history(p)
	found.versions(members.Items)
	found.strangers(p)
	h.Problems = append(h.Problems, found.list...)
	slices.SortStableFunc(h.Problems, func(a, b resource.ClusterProblem) int {
		return cmp.Compare(rank(a.Severity), rank(b.Severity))
	})
	h.Healthy = !slices.ContainsFunc(h.Problems, func(p resource.ClusterProblem) bool { return p.Severity != resource.SeverityNote })
	return h
}

func rank(s resource.Severity) int {
	switch s {
	case resource.SeverityCritical:
		return 0
	case resource.SeverityWarning:
		return 1
	}
	return 2
}

// rotation is how far a rotation of the cluster's own CA is, nil if none is under
// way.
func (p *picture) rotation() *resource.CARotation {
	if p.ca == nil {
		return nil
	}
	members := make([]string, 0, len(p.answers))
	for _, a := range p.answers {
		members = append(members, a.Member.ID)
	}
	_, progress, err := clusterca.Next(p.ca, slices.Collect(maps.Values(p.nodes)), members, "")
	if err != nil || progress.Step == clusterca.StepNone {
		return nil // a CA that cannot be read is told by whoever works with it
	}
	out := &resource.CARotation{NextStep: string(progress.Step), Waiting: []resource.RotationWaiting{}}
	for _, w := range progress.Waiting {
		out.Waiting = append(out.Waiting, resource.RotationWaiting{Node: w.NodeID, Why: w.Why})
	}
	return out
}

func list(ids []string) string { return strings.Join(ids, ", ") }
