// Package fleettest makes fleets for tests, as large as they want them.
package fleettest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Large is agents with as many certificates each, as agents report them. Equal ones
// report the same.
type Large struct {
	T            testing.TB
	Agents, Each int
	At           time.Time // of everything that happens
	// Store stores commands, in one entry of the log. They are not kept afterwards.
	Store func(commands []fleet.Command)

	pending []fleet.Command
	size    int
}

// Fill stores the whole fleet: a token, the agents, and what they report first.
func (f *Large) Fill() {
	f.Add(f.Token())
	for i := range f.Agents {
		f.Add(f.Enroll(i))
	}
	for i := range f.Agents {
		f.Add(f.Sync(i))
	}
	f.Flush()
}

// Add gathers commands into entries as a leader does.
func (f *Large) Add(payload fleet.Payload) {
	command, err := fleet.NewCommand(f.At, payload)
	require.NoError(f.T, err)
	if f.size+command.Size() > fleet.MaxEntry-1024 || len(f.pending) == 256 { // what a node takes at once
		f.Flush()
	}
	f.pending, f.size = append(f.pending, command), f.size+command.Size()
}

// Flush stores what was added and is not stored yet.
func (f *Large) Flush() {
	if len(f.pending) > 0 {
		f.Store(f.pending)
	}
	f.pending, f.size = f.pending[:0], 0
}

func agentID(i int) string { return fmt.Sprintf("u%015d", i) }

func hash(parts ...any) string {
	sum := sha256.Sum256([]byte(fmt.Sprint(parts...)))
	return hex.EncodeToString(sum[:])
}

// secretHash is that of the token of all agents.
var secretHash = [32]byte{42}

// Token is what the agents enrol with.
func (f *Large) Token() fleet.CreateEnrollmentToken {
	return fleet.CreateEnrollmentToken{
		Actor: "local", ID: "token", SecretHash: secretHash, NamePatterns: []string{"**.example.com"}, ExpiresAt: f.At.Add(time.Hour),
	}
}

// Enroll enrols an agent.
func (f *Large) Enroll(i int) fleet.EnrollAgent {
	return fleet.EnrollAgent{
		TokenID: "token", SecretHash: secretHash, AgentID: agentID(i),
		Identity: fleet.Identity{Certificate: make([]byte, 620), Fingerprint: hash("cert", i), PublicKeyFingerprint: hash("key", i), Serial: hash("serial", i)[:32], NotAfter: f.At.AddDate(0, 0, 30)},
		Host:     wire.HostReport{Hostname: fmt.Sprintf("web%06d.dc%d.example.com", i, i%7), OS: "linux", Arch: "amd64", Version: "1.4.2", StartedAt: f.At},
	}
}

// Row is a certificate as an agent with one deployment describes it.
func (f *Large) Row(i, j int, revision uint64) fleet.Row {
	name := fmt.Sprintf("app%d.web%06d.dc%d.example.com", j, i, i%7)
	at := f.At.Add(-time.Duration(i%29) * 24 * time.Hour)
	fingerprint := hash("leaf", i, j, revision)
	data, err := json.Marshal(wire.Summary{
		Names: pki.Names{DNS: []string{name}}, State: wire.StateValid, Issuer: "coordinator", IssuerKind: "coordinator",
		Serial: fingerprint[:32], Fingerprint: fingerprint, IssuerDN: "CN=certctl Issuing CA 1f35b030-85e236bc,O=certctl",
		KeyAlgorithm: "ecdsa-p256", NotBefore: at, NotAfter: at.AddDate(0, 0, 30), RenewAt: at.AddDate(0, 0, 20), SafeUntil: at.AddDate(0, 0, 30), Renewals: revision,
		Deployments: []wire.DeploymentSummary{{ID: "1", State: wire.DeploymentVerified, Fingerprint: fingerprint, At: at, Detail: "wrote 2 files; 127.0.0.1:443 serves it"}},
	})
	require.NoError(f.T, err)
	made, err := fleet.NewRow(wire.Row{Name: fmt.Sprintf("app%d", j), Revision: revision, Data: data})
	require.NoError(f.T, err)
	return made
}

// Digest is that of an agent's rows.
func Digest(rows []fleet.Row) (digest wire.Digest) {
	for _, row := range rows {
		digest.Toggle(wire.Row{Name: row.Name, Revision: row.Revision, Data: row.Data}.Hash())
	}
	return digest
}

// Sync is the first one of an agent.
func (f *Large) Sync(i int) fleet.SyncAgent {
	p := fleet.SyncAgent{AgentID: agentID(i), BootID: "boot-" + agentID(i), Sequence: 1, Revision: uint64(f.Each), HeadRevision: uint64(f.Each)}
	for j := range f.Each {
		p.Rows = append(p.Rows, f.Row(i, j, uint64(j+1)))
	}
	p.Digest = Digest(p.Rows)
	return p
}

// Renewed is the sync after one certificate was renewed, in a fleet that has not
// changed since the first one.
func (f *Large) Renewed(i int) fleet.SyncAgent {
	first := f.Sync(i)
	rows := slices.Clone(first.Rows)
	rows[0] = f.Row(i, 0, uint64(f.Each+1))
	return fleet.SyncAgent{
		AgentID: first.AgentID, BootID: first.BootID, Sequence: 2, BaseRevision: first.Revision, Revision: first.Revision + 1, HeadRevision: first.Revision + 1,
		Rows: rows[:1], Digest: Digest(rows), Events: []wire.Event{{Sequence: 1, At: f.At, Kind: wire.EventRenewed, Certificate: "app0", Serial: rows[0].Columns.Serial}},
	}
}
