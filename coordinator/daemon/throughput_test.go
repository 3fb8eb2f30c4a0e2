package daemon_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// throughputTime is how long each figure is measured.
const throughputTime = 3 * time.Second

// BenchmarkThreeNodes is acknowledged syncs with changes through three whole
// coordinators on this machine: log, tables and journals on real files, over TLS.
// Beside each stands what hashicorp/raft does by itself, over plain TCP, with the
// same log store and nothing to apply:
//
//   - per sync: with as many callers, each sync an entry. That is the limit for who
//     makes an entry of each sync, and counts what callers get.
//   - per entry: with entries as large, and as many at once, as the coordinators made
//     of the syncs. That is the limit for who makes those entries: what is missing
//     is for applying them, three times on this machine, and for the journals.
//
// What the callers ask for is acknowledged when it is committed and applied, at the
// leader, or at the follower that they asked.
func BenchmarkThreeNodes(b *testing.B) {
	const agents = 2 * (1 + 16 + 64 + 256)
	c := daemontest.Start(b, 3, nil)
	leader := c.Leader()
	leader.Do(fleet.CreateEnrollmentToken{
		Actor: "local", ID: "bench", SecretHash: [32]byte{1}, NamePatterns: []string{"**.example.com"}, ExpiresAt: time.Now().Add(time.Hour),
	})
	for i := range agents {
		id := fmt.Sprintf("agent%04d", i)
		leader.Do(fleet.EnrollAgent{TokenID: "bench", SecretHash: [32]byte{1}, AgentID: id, Identity: fleet.Identity{
			Certificate: []byte(id), Fingerprint: "f" + id, PublicKeyFingerprint: "k" + id, Serial: "01", NotAfter: time.Now().Add(time.Hour),
		}})
	}
	next := 0 // agent that has not synced yet
	raw := startRaw(b)
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			leader, follower := c.Leader(), c.Follower()
			load := prepare(b, &next, callers)
			before := leader.Node().AppliedIndex()
			direct := hammer(b, callers, load.propose(leader))
			entries := float64(leader.Node().AppliedIndex() - before)
			c.AwaitEqual()
			octets, perEntry := float64(load.octets.Load()), float64(direct.times)/entries
			alone := raw.rate(b, callers, int(octets)/direct.times)
			limit := raw.rate(b, max(1, int(float64(callers)/perEntry+0.5)), int(octets/entries))
			forwarded := hammer(b, callers, prepare(b, &next, callers).propose(follower))
			c.AwaitEqual()

			b.ReportMetric(direct.rate(), "syncs/s")
			b.ReportMetric(entries/direct.took.Seconds(), "entries/s")
			b.ReportMetric(perEntry, "syncs/entry")
			b.ReportMetric(octets/float64(direct.times), "B/sync")
			b.ReportMetric(direct.quantile(50), "p50-ms")
			b.ReportMetric(direct.quantile(99), "p99-ms")
			b.ReportMetric(forwarded.rate(), "follower-syncs/s")
			b.ReportMetric(forwarded.quantile(50), "follower-p50-ms")
			b.ReportMetric(forwarded.quantile(99), "follower-p99-ms")
			b.ReportMetric(alone, "raft-entries/s")
			b.ReportMetric(limit, "raft-same-entries/s")
			b.ReportMetric(100*entries/direct.took.Seconds()/limit, "%-of-raft-per-entry")
			b.ReportMetric(100*direct.rate()/alone, "%-of-raft-per-sync")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// A load is syncs that are ready: what a host makes costs no coordinator anything.
type load struct {
	commands [][]fleet.Command // by caller
	octets   atomic.Int64      // of those that were sent
}

func prepare(b *testing.B, next *int, callers int) *load {
	b.Helper()
	l := &load{commands: make([][]fleet.Command, callers)}
	for caller := range callers {
		host := &syncer{id: fmt.Sprintf("agent%04d", *next)}
		*next++
		for range max(200, 30_000/callers) {
			command, err := host.next()
			require.NoError(b, err)
			l.commands[caller] = append(l.commands[caller], command)
		}
	}
	return l
}

// propose has callers send their syncs through a node.
func (l *load) propose(node *daemontest.Node) func(ctx context.Context, caller int) error {
	return func(ctx context.Context, caller int) error {
		if len(l.commands[caller]) == 0 {
			return errDone
		}
		command := l.commands[caller][0]
		l.commands[caller] = l.commands[caller][1:]
		l.octets.Add(int64(command.Size()))
		results, err := node.Node().Propose(ctx, command)
		if err == nil {
			err = results[0].Err()
		}
		return err
	}
}

// hammered is how often something was done, in which time, and how long each took.
type hammered struct {
	times int
	took  time.Duration
	each  []time.Duration // rising
}

func (h hammered) rate() float64 { return float64(h.times) / h.took.Seconds() }

// quantile is within how many milliseconds so many of a hundred were done.
func (h hammered) quantile(percent int) float64 {
	return float64(h.each[(len(h.each)-1)*percent/100].Microseconds()) / 1000
}

// hammer lets callers do something one after the other for throughputTime.
func hammer(b *testing.B, callers int, do func(ctx context.Context, caller int) error) hammered {
	b.Helper()
	each := make([][]time.Duration, callers)
	var wg sync.WaitGroup
	began := time.Now()
	for caller := range callers {
		wg.Go(func() {
			for time.Since(began) < throughputTime {
				at := time.Now()
				if err := do(b.Context(), caller); err != nil {
					if !errors.Is(err, errDone) {
						b.Error(err)
					}
					return
				}
				each[caller] = append(each[caller], time.Since(at))
			}
		})
	}
	wg.Wait()
	h := hammered{took: time.Since(began), each: slices.Concat(each...)}
	slices.Sort(h.each)
	h.times = len(h.each)
	if h.times == 0 {
		b.Fatal("nothing was done")
	}
	return h
}

// errDone says that there is nothing more to do.
var errDone = errors.New("nothing is left to do")

// syncer is an agent that renews one certificate after the other.
type syncer struct {
	id       string
	sequence uint64
	digest   wire.Digest
	rows     map[string]wire.Row
}

// next is the command of a sync in which one of twenty certificates was renewed.
func (s *syncer) next() (fleet.Command, error) {
	s.sequence++
	name := fmt.Sprintf("www%02d", s.sequence%20)
	now := time.Now().UTC()
	serial := fmt.Sprintf("%040x", s.sequence)
	data, err := json.Marshal(wire.Summary{
		Names: pki.MustParseNames(name+".example.com", "api."+name+".example.com"), State: wire.StateValid, Issuer: "internal", IssuerKind: "coordinator",
		Serial: serial, Fingerprint: fmt.Sprintf("%064x", s.sequence), IssuerDN: "CN=certctl issuing CA,O=Example", KeyAlgorithm: "ECDSA P-256",
		NotBefore: now, NotAfter: now.Add(720 * time.Hour), RenewAt: now.Add(480 * time.Hour), SafeUntil: now.Add(720 * time.Hour), Renewals: s.sequence,
	})
	if err != nil {
		return fleet.Command{}, err
	}
	row := wire.Row{Name: name, Revision: s.sequence, Data: data}
	if s.rows == nil {
		s.rows = map[string]wire.Row{}
	}
	if old, ok := s.rows[name]; ok {
		s.digest.Toggle(old.Hash())
	}
	s.digest.Toggle(row.Hash())
	s.rows[name] = row
	parsed, err := fleet.NewRow(row)
	if err != nil {
		return fleet.Command{}, err
	}
	return fleet.NewCommand(now, fleet.SyncAgent{
		AgentID: s.id, BootID: "boot", Sequence: s.sequence, BaseRevision: s.sequence - 1, Revision: s.sequence, HeadRevision: s.sequence,
		Digest: s.digest, Rows: []fleet.Row{parsed},
		Events: []wire.Event{{Sequence: s.sequence, At: now, Kind: wire.EventRenewed, Certificate: name, Serial: serial}},
	})
}

// rawRaft is three nodes of hashicorp/raft with nothing around them.
type rawRaft struct{ nodes []*raft.Raft }

func startRaw(b *testing.B) *rawRaft {
	b.Helper()
	r := &rawRaft{}
	var voters []raft.Server
	var transports []*raft.NetworkTransport
	for i := range 3 {
		transport, err := raft.NewTCPTransportWithLogger("127.0.0.1:0", nil, 3, 10*time.Second, hclog.NewNullLogger())
		require.NoError(b, err)
		transports = append(transports, transport)
		voters = append(voters, raft.Server{ID: raft.ServerID(fmt.Sprintf("raw%d", i)), Address: transport.LocalAddr()})
	}
	for i, transport := range transports {
		store, err := raftboltdb.NewBoltStore(filepath.Join(b.TempDir(), "log.db"))
		require.NoError(b, err)
		cached, err := raft.NewLogCache(512, store)
		require.NoError(b, err)
		config := raft.DefaultConfig()
		config.LocalID, config.Logger, config.MaxAppendEntries = voters[i].ID, hclog.NewNullLogger(), 512
		snapshots := raft.NewInmemSnapshotStore()
		require.NoError(b, raft.BootstrapCluster(config, cached, store, snapshots, transport, raft.Configuration{Servers: voters}))
		node, err := raft.NewRaft(config, nothing{}, cached, store, snapshots, transport)
		require.NoError(b, err)
		r.nodes = append(r.nodes, node)
		b.Cleanup(func() {
			_ = node.Shutdown().Error()
			_ = transport.Close()
			_ = store.Close()
		})
	}
	return r
}

// rate is how many entries a second the three take.
func (r *rawRaft) rate(b *testing.B, callers, size int) float64 {
	b.Helper()
	var leader *raft.Raft
	require.Eventually(b, func() bool {
		for _, node := range r.nodes {
			if node.State() == raft.Leader && node.VerifyLeader().Error() == nil {
				leader = node
				return true
			}
		}
		return false
	}, time.Minute, 10*time.Millisecond)
	entry := make([]byte, size)
	return hammer(b, callers, func(context.Context, int) error { return leader.Apply(entry, 0).Error() }).rate()
}

// nothing is a state machine without a state.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }
func (nothing) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (nothing) Release()                            {}
