package daybook

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/wire"
)

// A node with its log and its journal: what came in before the day was over is recorded
// when the node leads again, and not once more when it leads another time.
func TestDaysAcrossRestarts(t *testing.T) {
	dir := t.TempDir()
	began := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	node := clustertest.Restart(t, dir)
	propose := func(payload fleet.Payload) {
		t.Helper()
		command, err := fleet.NewCommand(began, payload)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		results, err := node.Propose(ctx, command)
		require.NoError(t, err)
		require.NoError(t, results[0].Err())
	}
	propose(fleet.CreateEnrollmentToken{Actor: "local", ID: "token", SecretHash: [32]byte{1}, ExpiresAt: began.AddDate(1, 0, 0)})
	propose(enrolment("a1", began))
	for i := range uint64(3) {
		propose(fleet.SyncAgent{AgentID: "a1", BootID: "b", Sequence: i + 1, Events: []wire.Event{
			{Sequence: 2*i + 1, At: began, Kind: wire.EventRenewed, Issuer: "corp"},
			{Sequence: 2*i + 2, At: began, Kind: wire.EventFailed, Issuer: "corp", Reason: wire.ReasonLimited},
		}})
	}
	node.Stop()
	for range 2 {
		node = clustertest.Restart(t, dir)
		k, err := New(Config{
			Node: node, Journal: node.Journal, Pause: func() time.Duration { return pause }, Log: slog.New(slog.DiscardHandler),
			Now: func() time.Time { return began.Add(13 * time.Hour) },
		})
		require.NoError(t, err)
		require.Eventually(t, func() bool { return node.Journal.Through() >= node.AppliedIndex() }, time.Minute, time.Millisecond)
		require.NoError(t, k.record(t.Context()))
		day, ok := node.State().View().Day("2026-05-01")
		require.True(t, ok)
		assert.True(t, day.Final)
		assert.NotNil(t, day.Standing)
		assert.EqualValues(t, 3, day.Activity.Renewed)
		assert.Equal(t, []fleet.Count{{Name: "limited", Count: 3}}, day.Activity.Issuers[0].Reasons)
		require.Eventually(t, func() bool {
			found, _, err := node.Journal.Read(history.Query{Kinds: []fleet.Kind{fleet.KindDayRecorded}})
			return assert.NoError(t, err) && len(found) == 1
		}, time.Minute, time.Millisecond, "the journal has the day once")
		node.Stop()
	}
}

func enrolment(id string, at time.Time) fleet.EnrollAgent {
	return fleet.EnrollAgent{TokenID: "token", SecretHash: [32]byte{1}, AgentID: id, Identity: fleet.Identity{
		Certificate: []byte("c"), Fingerprint: "f" + id, PublicKeyFingerprint: "p" + id, Serial: "1", NotAfter: at.AddDate(1, 0, 0),
	}}
}

// TestScaleOfADay measures what a day costs the leader of a large fleet: 100,000 hosts
// with 1,000,000 certificates, of which a sixtieth is renewed, and a journal with a
// million other facts of before.
func TestScaleOfADay(t *testing.T) {
	if os.Getenv("CERTCTL_SOAK") == "" {
		t.Skip("set CERTCTL_SOAK=1: a fleet of 1,000,000 certificates takes some minutes and 4 GB")
	}
	const hosts, each, older, renewals = 100_000, 10, 1_000_000, 100_000 / 6
	s := newStore(t)
	began := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	journal, err := history.Create(history.Config{Path: filepath.Join(t.TempDir(), "journal.db"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, journal.Close()) })
	require.NoError(t, s.do(began, fleet.CreateEnrollmentToken{Actor: "local", ID: "token", SecretHash: [32]byte{1}, ExpiresAt: began.AddDate(1, 0, 0)}).Err())
	for i := range hosts {
		id := fmt.Sprintf("agent%06d", i)
		sync := fleet.SyncAgent{AgentID: id, BootID: "b", Sequence: 1, Revision: each, HeadRevision: each, Host: &wire.HostReport{Hostname: id, Version: "v1"}}
		for n := range uint64(each) {
			row, err := fleet.NewRow(wire.Row{Name: fmt.Sprint("web", n), Revision: n + 1, Data: fmt.Appendf(nil,
				`{"names":["www%d.example.com"],"state":"valid","issuer":"corp","fingerprint":"f%d-%d","not_after":%q,"deployments":[{"id":"d","state":"verified"}]}`,
				n, i, n, began.AddDate(0, 0, 30).Format(time.RFC3339))})
			require.NoError(t, err)
			sync.Rows = append(sync.Rows, row)
		}
		require.NoError(t, s.do(began, enrolment(id, began)).Err())
		require.NoError(t, s.do(began, sync).Err())
	}
	detail, err := json.Marshal(wire.Event{At: began, Kind: wire.EventRenewed, Certificate: "web1", Serial: "0a0b0c", Issuer: "corp"})
	require.NoError(t, err)
	index, facts := uint64(0), []fleet.Fact{}
	put := func(at time.Time, kind fleet.Kind) {
		index++
		facts = append(facts, fleet.Fact{Index: index, Time: at, Kind: kind, Actor: "agent:agent000001", Agent: "agent000001", Object: "web1", Detail: detail})
		if len(facts) == 10_000 {
			require.NoError(t, journal.Append(index, facts))
			facts = facts[:0]
		}
	}
	for i := range older {
		put(began.AddDate(0, 0, -200).Add(time.Duration(i)*time.Second), fleet.KindOrderIssued)
	}
	for i := range renewals {
		at := began.Add(time.Duration(i) * time.Second / 2)
		put(at, fleet.Kind(wire.EventIssued))
		put(at, fleet.Kind(wire.EventDeployed))
		put(at, fleet.Kind(wire.EventRenewed))
	}
	require.NoError(t, journal.Append(index, facts))
	s.journal = &split{memory: &memory{}, read: journal}

	k := s.keeperAt(func() time.Time { return began.Add(13 * time.Hour) })
	before := time.Now()
	require.NoError(t, k.count(t.Context(), k.config.Now().UTC()))
	t.Logf("counting a day of %d facts, behind %d others: %v", 3*renewals, older, time.Since(before))
	before = time.Now()
	_, err = k.standing(t.Context(), s.state.View(), k.config.Now())
	require.NoError(t, err)
	t.Logf("counting %d hosts with %d certificates: %v", hosts, hosts*each, time.Since(before))
	before = time.Now()
	require.NoError(t, k.record(t.Context()))
	t.Logf("recording the day, all in all: %v", time.Since(before))
	assert.EqualValues(t, renewals, s.day("2026-05-01").Activity.Renewed)
	assert.EqualValues(t, hosts*each, s.day("2026-05-01").Standing.Certificates)
}

// split reads another journal than the one that is written.
type split struct {
	*memory
	read *history.Journal
}

func (s *split) Status() (history.Status, error) { return s.read.Status() }

func (s *split) Facts(ctx context.Context, q history.Query) ([]fleet.Fact, string, error) {
	return s.read.Facts(ctx, q)
}
