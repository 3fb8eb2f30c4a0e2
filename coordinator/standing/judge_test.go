package standing

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/fleet"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sound is a cluster of voters a, b, ... of which the first leads and all is well.
func sound(voters int) *picture {
	p := &picture{self: "a", now: noon, index: 7, begun: 1000, nodes: map[string]*fleet.ClusterNode{}}
	for i := range voters {
		id := string(rune('a' + i))
		r := &Report{
			NodeID: id, Version: "v1", Level: 2, StartedAt: noon.Add(-time.Hour), Time: noon, Ready: true,
			Readiness:           ReadinessReport{Running: true, LeaderKnown: true, Leading: i == 0, Applied: true},
			Raft:                RaftReport{Elected: i == 0, Leader: "a", Term: 3, LastIndex: 1000, CommitIndex: 1000, AppliedIndex: 1000, ConfigurationIndex: 7},
			Disk:                DiskReport{FreeBytes: 50 << 30, TotalBytes: 100 << 30},
			CertificateNotAfter: noon.Add(20 * 24 * time.Hour),
		}
		if i > 0 {
			r.Raft.SilenceSeconds = 0.05
		}
		p.answers = append(p.answers, Answer{Member: cluster.Member{ID: id, Address: id + ":8444", Voter: true}, Report: r})
		p.nodes[id] = &fleet.ClusterNode{ID: id, Address: id + ":8444", URL: "https://" + id, Version: "v1", Level: 2, UpdatedAt: noon.Add(-time.Hour)}
	}
	return p
}

func (p *picture) lose(i int) {
	p.answers[i].Report, p.answers[i].Err = nil, errors.New("connection refused")
}

func TestSoundClusters(t *testing.T) {
	for voters, tolerance := range map[int]int{1: 0, 3: 1, 5: 2, 7: 3} {
		h := sound(voters).health()
		assert.True(t, h.Healthy, "%d: %v", voters, h.Problems)
		assert.Equal(t, voters/2+1, h.Quorum)
		assert.Equal(t, voters, h.VotersWorking)
		assert.Equal(t, tolerance, h.FailureTolerance)
		assert.Equal(t, "a", h.Leader)
		assert.Empty(t, h.Problems)
	}
	members := sound(3).members()
	require.Len(t, members.Items, 3)
	b := members.Items[1]
	assert.Equal(t, resource.Member{
		ID: "b", Address: "b:8444", URL: "https://b", Version: "v1", Level: 2, Voter: true, Health: resource.MemberHealthy,
		LeaderHeardSeconds: 0.05, AppliedIndex: 1000, CertificateNotAfter: noon.Add(20 * 24 * time.Hour),
	}, b)
	assert.True(t, members.Items[0].Leader)
	assert.EqualValues(t, 7, members.ConfigurationIndex)
}

// Each fault is told with its code, as bad as it is, and with something to do.
func TestProblems(t *testing.T) {
	for name, c := range map[string]struct {
		voters    int
		spoil     func(p *picture)
		want      []string // code severity node
		working   int
		tolerance int
	}{
		"one of three is gone": {3, func(p *picture) { p.lose(2) }, []string{"no_margin critical ", "unreachable warning c"}, 2, 0},
		"one of five is gone":  {5, func(p *picture) { p.lose(4) }, []string{"unreachable warning e"}, 4, 1},
		"two of five are gone": {5, func(p *picture) { p.lose(3); p.lose(4) }, []string{"no_margin critical ", "unreachable warning d", "unreachable warning e"}, 3, 0},
		"two of three are gone": {3, func(p *picture) {
			p.lose(1)
			p.lose(2)
			p.answers[0].Report.Raft.Elected, p.answers[0].Report.Raft.Leader, p.answers[0].Report.Raft.SilenceSeconds = false, "", 60
		}, []string{"no_quorum critical ", "unreachable warning b", "unreachable warning c"}, 1, 0},
		"nobody leads": {3, func(p *picture) {
			for _, a := range p.answers {
				a.Report.Raft.Elected, a.Report.Raft.Leader = false, ""
				a.Report.Raft.SilenceSeconds = 30
			}
		}, []string{"no_leader critical "}, 3, 1},
		"one hears no leader": {3, func(p *picture) { p.answers[1].Report.Raft.SilenceSeconds = 60 },
			[]string{"no_margin critical ", "cut_off warning b"}, 2, 0},
		"one stopped applying": {3, func(p *picture) { p.answers[2].Report.Readiness.Failure = "type 99 is unknown" },
			[]string{"no_margin critical ", "failing critical c"}, 2, 0},
		"a journal cannot be written": {3, func(p *picture) { p.answers[2].Report.Readiness.Journal = "no space" },
			[]string{"no_margin critical ", "failing critical c"}, 2, 0},
		"all journals cannot be written": {3, func(p *picture) {
			for _, a := range p.answers {
				a.Report.Readiness.Journal = "no space"
			}
		}, []string{"journal critical ", "failing critical a", "failing critical b", "failing critical c"}, 0, 0},
		"one is behind": {3, func(p *picture) {
			p.answers[0].Report.Raft.CommitIndex, p.answers[0].Report.Raft.AppliedIndex = 10_000, 10_000
			p.answers[1].Report.Raft.AppliedIndex = 9_990
		}, []string{"behind warning c"}, 3, 1},
		"an even number": {4, func(*picture) {}, []string{"even_voters note "}, 4, 1},
		"a new node":     {3, func(p *picture) { p.answers[2].Member.Voter = false }, []string{"even_voters warning ", "no_vote warning c"}, 2, 0},
		"in an upgrade":  {3, func(p *picture) { p.answers[2].Report.Version = "v2" }, []string{"versions note "}, 3, 1},
		"a wrong clock": {3, func(p *picture) { p.answers[1].Ahead, p.answers[1].Uncertain = -5*time.Second, 10*time.Millisecond },
			[]string{"clock warning b"}, 3, 1},
		"a slow answer":         {3, func(p *picture) { p.answers[1].Ahead, p.answers[1].Uncertain = time.Second, 2*time.Second }, nil, 3, 1},
		"a certificate at end":  {3, func(p *picture) { p.answers[1].Report.CertificateNotAfter = noon.Add(24 * time.Hour) }, []string{"certificate warning b"}, 3, 1},
		"an ended certificate":  {3, func(p *picture) { p.answers[1].Report.CertificateNotAfter = noon }, []string{"certificate critical b"}, 3, 1},
		"no certificate":        {1, func(p *picture) { p.answers[0].Report.CertificateNotAfter = time.Time{} }, nil, 1, 0},
		"a full disk":           {3, func(p *picture) { p.answers[2].Report.Disk.FreeBytes = 1 << 20 }, []string{"disk warning c"}, 3, 1},
		"a journal nearly full": {3, func(p *picture) { p.answers[2].Report.Journal.NearlyFull = true }, []string{"journal warning c"}, 3, 1},
		"a database for a moment": {3, func(p *picture) {
			p.answers[0].Report.Database = &DatabaseReport{Error: "gone", Facts: 7, LagSeconds: 5}
		}, []string{"database note "}, 3, 1},
		"a database for long": {3, func(p *picture) {
			p.answers[0].Report.Database = &DatabaseReport{Error: "gone", Facts: 7, LagSeconds: 301}
		}, []string{"database warning a"}, 3, 1},
		"a slow database": {3, func(p *picture) {
			p.answers[0].Report.Database = &DatabaseReport{Usable: true, Facts: 7, LagSeconds: 301}
		}, []string{"database warning a"}, 3, 1},
		"another database": {3, func(p *picture) {
			p.answers[0].Report.Database = &DatabaseReport{Refused: true, Error: "of another cluster"}
		}, []string{"database critical a"}, 3, 1},
		"a small database": {3, func(p *picture) {
			p.answers[0].Report.Database = &DatabaseReport{Usable: true, Warning: "40 connections"}
		}, []string{"database warning a"}, 3, 1},
		"a database": {3, func(p *picture) {
			p.answers[0].Report.Database = &DatabaseReport{Usable: true, Facts: 7, LagSeconds: 2}
		}, nil, 3, 1},
		"a failed backup": {3, func(p *picture) { p.answers[0].Report.BackupError = "no space" }, []string{"backup warning a"}, 3, 1},
		"a stranger": {3, func(p *picture) { p.nodes["x"] = &fleet.ClusterNode{ID: "x", UpdatedAt: noon.Add(-time.Hour)} },
			[]string{"stranger warning x"}, 3, 1},
		"one that was a member": {3, func(p *picture) {
			p.nodes["x"] = &fleet.ClusterNode{ID: "x", Signer: "root", UpdatedAt: noon.Add(-time.Hour)}
		}, []string{"stranger warning x"}, 3, 1},
		"a node that joins": {3, func(p *picture) { p.nodes["x"] = &fleet.ClusterNode{ID: "x", UpdatedAt: noon.Add(-time.Second)} }, nil, 3, 1},
		"newer members elsewhere": {3, func(p *picture) { p.answers[1].Report.Raft.ConfigurationIndex = 9 },
			[]string{"configuration warning b"}, 3, 1},
		"a journal that is filled":  {3, func(p *picture) { p.lack(1, GapReport{1, 500}) }, []string{"history warning b"}, 3, 1},
		"a history that nobody has": {1, func(p *picture) { p.lack(0, GapReport{1, 500}) }, []string{"history note "}, 1, 0},
		"a history that one may have": {3, func(p *picture) {
			p.lack(0, GapReport{1, 500})
			p.lack(1, GapReport{1, 600})
			p.lose(2)
		}, []string{"no_margin critical ", "unreachable warning c", "history warning b", "history warning "}, 2, 0},
		"no members": {0, func(*picture) {}, []string{"no_quorum critical "}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := sound(c.voters)
			c.spoil(p)
			h := p.health()
			var got []string
			for _, problem := range h.Problems {
				got = append(got, fmt.Sprintf("%s %s %s", problem.Code, problem.Severity, problem.Node))
				assert.NotEmpty(t, problem.Text)
				assert.NotEmpty(t, problem.Mend)
			}
			assert.Equal(t, c.want, got)
			assert.Equal(t, len(c.want) == 0 || strings.HasSuffix(c.want[0], " note "), h.Healthy)
			assert.Equal(t, c.working, h.VotersWorking)
			assert.Equal(t, c.tolerance, h.FailureTolerance)
		})
	}
}

// What is advised can be done: without a quorum nobody is removed.
func TestAdvice(t *testing.T) {
	advice := func(p *picture) (mend string) {
		for _, problem := range p.health().Problems {
			if problem.Code == CodeUnreachable {
				mend = problem.Mend
			}
		}
		return mend
	}
	p := sound(3)
	p.lose(2)
	assert.Contains(t, advice(p), "certctl cluster remove c")
	p.lose(1)
	assert.NotContains(t, advice(p), "cluster remove")
	assert.NotEmpty(t, advice(p))
}

// Of two that say that they lead, the one of the newer term does.
func TestLeader(t *testing.T) {
	p := sound(3)
	p.answers[1].Report.Raft.Elected, p.answers[1].Report.Raft.Term = true, 4
	assert.Equal(t, "b", p.health().Leader)
	p.lose(0)
	p.lose(1)
	assert.Equal(t, "a", p.health().Leader, "what the others heard of lately")
	p.answers[2].Report.Raft.SilenceSeconds = 3600
	assert.Empty(t, p.health().Leader)
}

func TestRotation(t *testing.T) {
	p, key := sound(3), ca.NewSealKey()
	old, err := clusterca.Create(key, noon)
	require.NoError(t, err)
	p.ca = &fleet.ClusterCA{Authorities: []fleet.ClusterAuthority{old}}
	for _, node := range p.nodes {
		node.Trusts, node.Signer = []string{old.Fingerprint()}, old.Fingerprint()
	}
	require.Nil(t, p.health().CARotation)
	begun, err := clusterca.Begin(p.ca, key, "", noon)
	require.NoError(t, err)
	p.ca.Authorities = begun.Authorities
	p.nodes["b"].Trusts = append(p.nodes["b"].Trusts, begun.Authorities[1].Fingerprint())
	delete(p.nodes, "c")
	rotation := p.health().CARotation
	require.NotNil(t, rotation)
	assert.Equal(t, "activate", rotation.NextStep)
	require.Len(t, rotation.Waiting, 2)
	assert.Equal(t, []string{"a", "c"}, []string{rotation.Waiting[0].Node, rotation.Waiting[1].Node})
	assert.True(t, p.health().Healthy, "a rotation is no problem")
}

// Whoever follows the advice must not start a node of a cluster that this one was
// recovered from.
func TestNobodyIsToldToStartAFormerMember(t *testing.T) {
	p := sound(1)
	p.nodes["former"] = &fleet.ClusterNode{ID: "former", Signer: "root", UpdatedAt: noon.Add(-time.Hour)}
	p.nodes["new"] = &fleet.ClusterNode{ID: "new", UpdatedAt: noon.Add(-time.Hour)}
	problems := p.health().Problems
	require.Len(t, problems, 2)
	assert.Contains(t, problems[0].Text, "was a member")
	assert.Contains(t, problems[0].Mend, "do not start it with its old data")
	assert.Contains(t, problems[0].Mend, `"certctl cluster remove former" forgets`)
	assert.Contains(t, problems[1].Text, "never became a member")
	assert.Contains(t, problems[1].Mend, "start it")
}
