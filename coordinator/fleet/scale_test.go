//go:build linux

package fleet_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// A largeFleet is agents with as many certificates each, as agents report them.
type largeFleet struct {
	t               testing.TB
	state           *fleet.State
	agents, each    int
	pending         []fleet.Command
	size            int
	entries, octets int
}

func (f *largeFleet) agent(i int) string { return fmt.Sprintf("u%015d", i) }

func hash(parts ...any) string {
	sum := sha256.Sum256([]byte(fmt.Sprint(parts...)))
	return hex.EncodeToString(sum[:])
}

// add gathers commands into entries as a leader does.
func (f *largeFleet) add(payload fleet.Payload) {
	command, err := fleet.NewCommand(testTime, payload)
	require.NoError(f.t, err)
	if f.size+command.Size() > fleet.TargetEntry || len(f.pending) == 256 {
		f.flush()
	}
	f.pending, f.size = append(f.pending, command), f.size+command.Size()
}

func (f *largeFleet) flush() {
	if len(f.pending) == 0 {
		return
	}
	entry, err := fleet.EncodeEntry(f.pending)
	require.NoError(f.t, err)
	results, _, err := f.state.Apply(f.state.Index()+1, entry)
	require.NoError(f.t, err)
	for _, result := range results {
		require.NoError(f.t, result.Err())
	}
	f.pending, f.size = f.pending[:0], 0
	f.entries++
	f.octets += len(entry)
}

func (f *largeFleet) enroll(i int) fleet.EnrollAgent {
	id := f.agent(i)
	return fleet.EnrollAgent{
		TokenID: "token", SecretHash: [32]byte{42}, AgentID: id,
		Identity: fleet.Identity{Certificate: make([]byte, 620), Fingerprint: hash("cert", i), PublicKeyFingerprint: hash("key", i), Serial: hash("serial", i)[:32], NotAfter: testTime.AddDate(0, 0, 30)},
		Host:     wire.HostReport{Hostname: fmt.Sprintf("web%06d.dc%d.example.com", i, i%7), OS: "linux", Arch: "amd64", Version: "1.4.2", StartedAt: testTime},
	}
}

// row is a certificate as an agent with one deployment describes it.
func (f *largeFleet) row(i, j int, revision uint64) fleet.Row {
	name := fmt.Sprintf("app%d.web%06d.dc%d.example.com", j, i, i%7)
	at := testTime.Add(-time.Duration(i%29) * 24 * time.Hour)
	fingerprint := hash("leaf", i, j, revision)
	data, err := json.Marshal(wire.Summary{
		Names: pki.Names{DNS: []string{name}}, State: wire.StateValid, Issuer: "coordinator", IssuerKind: "coordinator",
		Serial: fingerprint[:32], Fingerprint: fingerprint, IssuerDN: "CN=certctl Issuing CA 1f35b030-85e236bc,O=certctl",
		KeyAlgorithm: "ecdsa-p256", NotBefore: at, NotAfter: at.AddDate(0, 0, 30), RenewAt: at.AddDate(0, 0, 20), SafeUntil: at.AddDate(0, 0, 30), Renewals: revision,
		Deployments: []wire.DeploymentSummary{{ID: "1", State: wire.DeploymentVerified, Fingerprint: fingerprint, At: at, Detail: "wrote 2 files; 127.0.0.1:443 serves it"}},
	})
	require.NoError(f.t, err)
	made, err := fleet.NewRow(wire.Row{Name: fmt.Sprintf("app%d", j), Revision: revision, Data: data})
	require.NoError(f.t, err)
	return made
}

func (f *largeFleet) digest(rows []fleet.Row) (digest wire.Digest) {
	for _, row := range rows {
		digest.Toggle(wire.Row{Name: row.Name, Revision: row.Revision, Data: row.Data}.Hash())
	}
	return digest
}

func (f *largeFleet) sync(i int) fleet.SyncAgent {
	p := fleet.SyncAgent{AgentID: f.agent(i), BootID: "boot-" + f.agent(i), Sequence: 1, Revision: uint64(f.each), HeadRevision: uint64(f.each)}
	for j := range f.each {
		p.Rows = append(p.Rows, f.row(i, j, uint64(j+1)))
	}
	p.Digest = f.digest(p.Rows)
	return p
}

// renewed is the sync after one certificate was renewed, in a fleet that has not
// changed since the first one.
func (f *largeFleet) renewed(i int) fleet.SyncAgent {
	first := f.sync(i)
	rows := slices.Clone(first.Rows)
	rows[0] = f.row(i, 0, uint64(f.each+1))
	return fleet.SyncAgent{
		AgentID: first.AgentID, BootID: first.BootID, Sequence: 2, BaseRevision: first.Revision, Revision: first.Revision + 1, HeadRevision: first.Revision + 1,
		Rows: rows[:1], Digest: f.digest(rows), Events: []wire.Event{{Sequence: 1, At: testTime, Kind: wire.EventRenewed, Certificate: "app0", Serial: rows[0].Columns.Serial}},
	}
}

// A moment is the time, and the processor time of this process.
type moment struct {
	at        time.Time
	processor time.Duration
}

func now() moment {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for the process itself
	return moment{time.Now(), time.Duration(u.Utime.Nano() + u.Stime.Nano())}
}

// took says both times: a busy machine makes the first one longer.
func (m moment) took() string {
	end := now()
	return fmt.Sprintf("%v (%v of processor time)", end.at.Sub(m.at).Round(time.Millisecond), (end.processor - m.processor).Round(time.Millisecond))
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func number(t testing.TB, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}

// TestScale fills a state with 100,000 agents and 1,000,000 certificates, and
// says what it takes; CERTCTL_SCALE_AGENTS makes it another number.
func TestScale(t *testing.T) {
	if os.Getenv("CERTCTL_SOAK") == "" {
		t.Skip("takes minutes and gigabytes: runs with CERTCTL_SOAK set")
	}
	state, err := fleet.New()
	require.NoError(t, err)
	f := &largeFleet{t: t, state: state, agents: number(t, "CERTCTL_SCALE_AGENTS", 100_000), each: 10}
	empty := heap()
	f.add(token("token"))
	began := now()
	for i := range f.agents {
		f.add(f.enroll(i))
	}
	f.flush()
	agents := heap()
	t.Logf("%d agents enrolled in %v, %d entries: %.0f MiB of heap, %d bytes each", f.agents, began.took(), f.entries, mib(agents-empty), (agents-empty)/uint64(f.agents))

	began, f.entries, f.octets = now(), 0, 0
	for i := range f.agents {
		f.add(f.sync(i))
	}
	f.flush()
	filled, rows := heap(), f.agents*f.each
	require.Equal(t, rows, state.View().Rows(fleet.TableCertificates))
	t.Logf("%d certificates in %v, %d entries of %.0f MiB: %.0f MiB of heap more, %d bytes each; %.0f MiB in all",
		rows, began.took(), f.entries, mib(uint64(f.octets)), mib(filled-agents), (filled-agents)/uint64(rows), mib(filled))

	// One renewal in one entry, then a hundred.
	for _, batch := range []int{1, 100} {
		var took []time.Duration
		for n := range 1000 / batch {
			commands := make([]fleet.Command, batch)
			for k := range commands {
				i := (n*batch+k)*97 + batch
				command, err := fleet.NewCommand(testTime, f.renewed(i%f.agents))
				require.NoError(t, err)
				commands[k] = command
			}
			entry, err := fleet.EncodeEntry(commands)
			require.NoError(t, err)
			at := time.Now()
			_, _, err = state.Apply(state.Index()+1, entry)
			took = append(took, time.Since(at))
			require.NoError(t, err)
		}
		slices.Sort(took)
		t.Logf("an entry of %d syncs with one renewed certificate each is applied in %v (median), %v (99 of 100), %v (most)", batch, took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	}

	path := filepath.Join(t.TempDir(), "snapshot")
	file, err := os.Create(path)
	require.NoError(t, err)
	began = now()
	require.NoError(t, state.Snapshot().Persist(file))
	require.NoError(t, file.Sync())
	written := began.took()
	info, err := file.Stat()
	require.NoError(t, err)
	require.NoError(t, file.Close())
	t.Logf("a snapshot is written and synced in %v: %.0f MiB", written, mib(uint64(info.Size())))

	want := state.View().Version(fleet.Tables()...)
	f.state = nil // the last that holds it
	runtime.GC()
	file, err = os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	restored, err := fleet.New()
	require.NoError(t, err)
	began = now()
	require.NoError(t, restored.Restore(bufio.NewReaderSize(file, 1<<20)))
	t.Logf("it is restored in %v; %.0f MiB of heap then", began.took(), mib(heap()))
	require.Equal(t, want, restored.View().Version(fleet.Tables()...))
	require.Equal(t, rows, restored.View().Rows(fleet.TableCertificates))
}

func mib(octets uint64) float64 { return float64(octets) / (1 << 20) }
