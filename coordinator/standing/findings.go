package standing

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
)

// findings collects problems. Each says what is wrong and what to do about it.
type findings struct {
	self   string
	quorum bool // enough voters work to change the members
	list   []resource.ClusterProblem
}

func (f *findings) add(code string, severity resource.Severity, node, text, mend string) {
	f.list = append(f.list, resource.ClusterProblem{Code: code, Severity: severity, Node: node, Text: text, Mend: mend})
}

func (f *findings) cluster(h *resource.ClusterHealth, storing int) {
	const critical, warning = resource.SeverityCritical, resource.SeverityWarning
	switch {
	case h.Voters == 0:
		f.add(CodeNoQuorum, critical, "", "this node knows no member that votes", "wait until it has joined; if it stays so, let it join again")
		return
	case h.VotersWorking < h.Quorum && storing >= h.Quorum && h.Leader != "":
		f.add(CodeJournal, critical, "",
			fmt.Sprintf("%d of %d voters can write their journals, as seen from %s, and %d are needed: changes are stored in the log, and will wait when too many facts are not in a journal",
				h.VotersWorking, h.Voters, f.self, h.Quorum),
			"make room where the data directories are, or mend the disks: the journals catch up by themselves")
	case storing < h.Quorum:
		f.add(CodeNoQuorum, critical, "",
			fmt.Sprintf("%d of %d voters work, as seen from %s, and %d are needed: nothing can be stored", h.VotersWorking, h.Voters, f.self, h.Quorum),
			"bring the nodes back that are missing; only if they are lost for good, recover with \"certctl-coordinator recover\" as the runbook says")
	case h.Leader == "":
		f.add(CodeNoLeader, critical, "", "no leader is known: nothing can be stored until one is elected",
			"an election takes some seconds; if it stays so, look for nodes that do not reach each other")
	case h.Voters > 1 && h.FailureTolerance == 0 && h.VotersWorking < h.Voters:
		f.add(CodeNoMargin, critical, "",
			fmt.Sprintf("%d of %d voters work, and %d are needed: if one more fails, nothing can be stored", h.VotersWorking, h.Voters, h.Quorum),
			"bring the missing node back, or remove it (\"certctl cluster remove\") and let a new one join")
	}
	if h.Voters%2 == 0 {
		severity := warning
		if h.Voters > 2 {
			severity = resource.SeverityNote // as while one node takes another's place
		}
		f.add(CodeEvenVoters, severity, "",
			fmt.Sprintf("%d voters bear the failure of as many as %d would, and there is one more that can fail", h.Voters, h.Voters-1),
			"let one more node join, or remove one")
	}
}

func (f *findings) member(m *resource.Member) {
	severity := resource.SeverityWarning
	switch m.Health {
	case resource.MemberUnreachable:
		mend := "see whether it runs, and whether its port for the cluster can be reached"
		if f.quorum {
			mend += "; if it is lost for good, remove it (\"certctl cluster remove " + m.ID + "\")"
		}
		f.add(CodeUnreachable, severity, m.ID, fmt.Sprintf("%s does not answer %s at %s: %s", m.ID, f.self, m.Address, m.Reason), mend)
	case resource.MemberCutOff:
		f.add(CodeCutOff, severity, m.ID, fmt.Sprintf("%s answers, but %s", m.ID, m.Reason),
			"see whether it and the leader reach each other, in both directions, and compare their clocks and certificates")
	case resource.MemberFailing:
		f.add(CodeFailing, resource.SeverityCritical, m.ID, fmt.Sprintf("%s does not work: %s", m.ID, m.Reason),
			"its log says more; mend the cause and start it again")
	case resource.MemberBehind:
		f.add(CodeBehind, severity, m.ID, fmt.Sprintf("%s is behind: %s", m.ID, m.Reason),
			"it catches up by itself; if it does not, its disk or its connection is too slow")
	case resource.MemberHealthy:
		if !m.Voter {
			f.add(CodeNoVote, severity, m.ID, fmt.Sprintf("%s has no vote yet", m.ID),
				"wait: a node that has kept up for a while gets one by itself")
		}
	}
}

// node looks at what a member reports about itself.
func (f *findings) node(a *Answer, p *picture) {
	r, id := a.Report, a.Member.ID
	const critical, warning = resource.SeverityCritical, resource.SeverityWarning
	if off := a.Ahead.Abs() - a.Uncertain; off > maxClock {
		direction := "behind"
		if a.Ahead > 0 {
			direction = "ahead"
		}
		f.add(CodeClock, warning, id, fmt.Sprintf("the clock of %s is %s %s of that of %s", id, a.Ahead.Abs().Round(100*time.Millisecond), direction, f.self),
			"let both hosts follow the same time servers")
	}
	if end := r.CertificateNotAfter; !end.IsZero() && end.Sub(r.Time) < minLifetime {
		severity, words := warning, "expires at "+end.UTC().Format(time.RFC3339)
		if !r.Time.Before(end) {
			severity, words = critical, "expired at "+end.UTC().Format(time.RFC3339)
		}
		f.add(CodeCertificate, severity, id, fmt.Sprintf("the certificate of %s for the other nodes %s, and it was not renewed", id, words),
			"its log says why; see that it has the seal key, then restart it")
	}
	if d := r.Disk; d.Error == "" && d.TotalBytes > 0 && d.FreeBytes < minDisk && d.FreeBytes < d.TotalBytes/minDiskShare {
		f.add(CodeDisk, warning, id, fmt.Sprintf("%s has %d MiB left where its data directory is", id, d.FreeBytes>>20),
			"make room: a node that cannot write stops taking part")
	}
	if r.Journal.NearlyFull {
		f.add(CodeJournal, warning, id, "the journal of "+id+" is nearly full: the oldest routine facts go",
			"give it more room (journal.max_bytes), or keep facts for a shorter time (journal.retention)")
	}
	f.database(id, r.Database)
	if r.BackupError != "" {
		f.add(CodeBackup, warning, id, fmt.Sprintf("%s could not write its last local snapshot: %s", id, r.BackupError),
			"mend the cause; \"certctl snapshot save\" takes one meanwhile")
	}
	if r.Raft.ConfigurationIndex > p.index {
		f.add(CodeConfiguration, warning, id, fmt.Sprintf("%s knows newer members (%d) than %s, which answers (%d)", id, r.Raft.ConfigurationIndex, f.self, p.index),
			"ask "+id+" instead, and see why "+f.self+" is behind")
	}
}

// database looks at the export of the leader. One that is away for some minutes is
// nothing to get up for: the facts wait.
func (f *findings) database(id string, d *DatabaseReport) {
	const mend = "nothing is lost while the journals have room; mend it, and the export goes on by itself: docs/operator/database.md"
	switch {
	case d == nil:
		return
	case d.Refused:
		f.add(CodeDatabase, resource.SeverityCritical, id, "the database is refused, and the history waits: "+d.Error, "see docs/operator/database.md; the facts wait in the journals meanwhile")
	case d.LagSeconds >= maxBacklog.Seconds():
		text := fmt.Sprintf("%d facts wait for the database, the oldest for %s", d.Facts, (time.Duration(d.LagSeconds) * time.Second).String())
		if d.Error != "" {
			text += ": " + d.Error
		}
		f.add(CodeDatabase, resource.SeverityWarning, id, text, mend)
	case d.Error != "":
		f.add(CodeDatabase, resource.SeverityNote, "", "the database cannot be used: "+d.Error, mend)
	}
	if d.Warning != "" {
		f.add(CodeDatabase, resource.SeverityWarning, id, d.Warning, "see the sizes in docs/operator/database.md")
	}
}

// history tells of members that lack a part of the history: of what they will have
// from others, and of what nobody has.
func (f *findings) history(p *picture) {
	lost, silent := p.lost()
	for _, a := range p.answers {
		if a.Report == nil {
			continue
		}
		if left := a.Report.skipped().Minus(lost).Count(); left > 0 {
			f.add(CodeHistory, resource.SeverityWarning, a.Member.ID,
				fmt.Sprintf("the journal of %s lacks the facts of %d log entries of before it joined, or was away", a.Member.ID, left),
				"wait, and remove no other member meanwhile: it gets them from the others by itself, if those are of a version that can give them")
		}
	}
	switch n := lost.Count(); {
	case n > 0 && len(silent) > 0:
		f.add(CodeHistory, resource.SeverityWarning, "", fmt.Sprintf("no member that answers has the facts of %d log entries", n),
			"bring "+list(silent)+" back, which may have them: the others get them from there by themselves")
	case n > 0:
		f.add(CodeHistory, resource.SeverityNote, "", fmt.Sprintf("no member has the facts of %d log entries: that part of the history is lost", n),
			"nothing is to be done: the members that had it are gone; the state has all that came of it")
	}
}

// versions tells of an upgrade that is not complete.
func (f *findings) versions(members []resource.Member) {
	var versions []string
	for _, m := range members {
		if m.Version != "" && !slices.Contains(versions, m.Version) {
			versions = append(versions, m.Version)
		}
	}
	if len(versions) > 1 {
		slices.Sort(versions)
		f.add(CodeVersions, resource.SeverityNote, "", "the nodes run different versions: "+list(versions),
			"finish the upgrade: until then nothing can be changed that one of them does not understand")
	}
}

// strangers are nodes that have a record and are no members.
func (f *findings) strangers(p *picture) {
	for _, id := range slices.Sorted(maps.Keys(p.nodes)) {
		node := p.nodes[id]
		member := slices.ContainsFunc(p.answers, func(a Answer) bool { return a.Member.ID == id })
		if member || p.now.Sub(node.UpdatedAt) <= strangerPatience {
			continue
		}
		forget := "\"certctl cluster remove " + id + "\""
		if node.Signer != "" {
			// Only members say who signed their certificate. With its old data it may
			// be one of a majority that knows nothing of this cluster.
			f.add(CodeStranger, resource.SeverityWarning, id, fmt.Sprintf("%s was a member and is none any more", id),
				"do not start it with its old data: empty its data directory before it joins again; "+forget+" forgets its record")
			continue
		}
		f.add(CodeStranger, resource.SeverityWarning, id, fmt.Sprintf("%s was let in and never became a member", id),
			"start it, so that it goes on joining; if it is gone, "+forget+" forgets it")
	}
}

// strangerPatience is how long a node may take from being let in to being a member.
const strangerPatience = 5 * time.Minute
