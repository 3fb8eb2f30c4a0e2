package apitest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/agentapi"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Agent enrols an agent on a host, with labels that the token gives it.
func (c *Coordinator) Agent(id, host string, labels map[string]string) *Agent {
	c.t.Helper()
	token := "t" + id
	c.do(fleet.CreateEnrollmentToken{
		Actor: "local", ID: token, Labels: labels, NamePatterns: []string{"**.example.com"}, MaxUses: 1, ExpiresAt: c.Now().Add(time.Hour),
	})
	report := wire.HostReport{Hostname: host, OS: "linux", Arch: "amd64", Version: "1.2.3", StartedAt: c.Now().UTC()}
	c.do(fleet.EnrollAgent{
		TokenID: token, AgentID: id, Host: report,
		Identity: fleet.Identity{Fingerprint: "f" + id, PublicKeyFingerprint: "k" + id, Serial: "0a", NotAfter: c.Now().Add(24 * time.Hour).UTC()},
	})
	return &Agent{c: c, id: id, host: report, rows: map[string]wire.Digest{}}
}

// Agent is an enrolled agent that reports what a test makes up.
type Agent struct {
	c        *Coordinator
	id       string
	host     wire.HostReport
	sequence uint64
	revision uint64
	events   uint64
	digest   wire.Digest
	rows     map[string]wire.Digest
}

// ID is the agent's id.
func (a *Agent) ID() string { return a.id }

// SafeUntil reports the offline horizon of a host that is safe until then.
func (a *Agent) SafeUntil(at time.Time) {
	a.c.t.Helper()
	a.host.SafeUntil, a.host.NotSafe = &at, 0
	a.sync(nil, nil)
}

// NotSafe reports that so many certificates are not safe now.
func (a *Agent) NotSafe(n int) {
	a.c.t.Helper()
	a.host.SafeUntil, a.host.NotSafe = nil, n
	a.sync(nil, nil)
}

// Warn reports findings about the host.
func (a *Agent) Warn(warnings ...string) {
	a.c.t.Helper()
	a.host.Warnings = warnings
	a.sync(nil, nil)
}

// ClockSkew reports how far the host's clock is ahead.
func (a *Agent) ClockSkew(by time.Duration) {
	a.c.t.Helper()
	a.host.ClockSkewSeconds = int64(by / time.Second)
	a.sync(nil, nil)
}

// Report sends the summary of one certificate.
func (a *Agent) Report(name string, summary wire.Summary) {
	a.c.t.Helper()
	data, err := json.Marshal(summary)
	require.NoError(a.c.t, err)
	a.revision++
	row := wire.Row{Name: name, Revision: a.revision, Data: data}
	stored, err := fleet.NewRow(row)
	require.NoError(a.c.t, err)
	if before, ok := a.rows[name]; ok {
		a.digest.Toggle(before)
	}
	a.rows[name] = row.Hash()
	a.digest.Toggle(row.Hash())
	a.sync([]fleet.Row{stored}, nil)
}

// Event reports a routine fact.
func (a *Agent) Event(kind wire.EventKind, certificate, detail string) {
	a.c.t.Helper()
	a.events++
	a.sync(nil, []wire.Event{{Sequence: a.events, At: a.c.Now().UTC(), Kind: kind, Certificate: certificate, Detail: detail}})
}

// EventAt reports a routine fact of some time ago.
func (a *Agent) EventAt(at time.Time, kind wire.EventKind, certificate string) {
	a.c.t.Helper()
	a.events++
	a.sync(nil, []wire.Event{{Sequence: a.events, At: at.UTC(), Kind: kind, Certificate: certificate}})
}

// Assignment reports what the agent made of an assignment.
func (a *Agent) Assignment(report wire.AssignmentReport) {
	a.c.t.Helper()
	a.sequence++
	a.c.do(fleet.SyncAgent{
		AgentID: a.id, BootID: "boot-of-" + a.id, Sequence: a.sequence, BaseRevision: a.revision, Revision: a.revision,
		HeadRevision: a.revision, Digest: a.digest, DesiredDigest: "some", Reports: []wire.AssignmentReport{report},
	})
}

// Command reports what became of a command.
func (a *Agent) Command(id string, state wire.CommandState, detail string) {
	a.c.t.Helper()
	a.sequence++
	a.c.do(fleet.SyncAgent{
		AgentID: a.id, BootID: "boot-of-" + a.id, Sequence: a.sequence, BaseRevision: a.revision, Revision: a.revision,
		HeadRevision: a.revision, Digest: a.digest, Commands: []fleet.CommandReport{{ID: id, State: state, Detail: detail, At: a.c.Now().UTC()}},
	})
}

// Issued lets the built-in CA have issued a certificate to the agent.
func (a *Agent) Issued(name string, summary wire.Summary) {
	a.c.t.Helper()
	a.sequence++
	id := "order-" + summary.Serial
	a.c.do(fleet.SyncAgent{
		AgentID: a.id, BootID: "boot-of-" + a.id, Sequence: a.sequence, BaseRevision: a.revision, Revision: a.revision,
		HeadRevision: a.revision, Digest: a.digest,
		Orders: []fleet.OrderPlacement{{ID: id, Certificate: name, Issuer: agentapi.BuiltinIssuer, CSR: []byte(id), Names: summary.Names}},
	}, fleet.CompleteOrder{Agent: a.id, ID: id, ChainPEM: "chain", Serial: summary.Serial, Fingerprint: summary.Fingerprint, NotAfter: summary.NotAfter})
}

func (a *Agent) sync(rows []fleet.Row, events []wire.Event) {
	a.c.t.Helper()
	a.sequence++
	host := a.host
	a.c.do(fleet.SyncAgent{
		AgentID: a.id, BootID: "boot-of-" + a.id, Sequence: a.sequence, Host: &host,
		BaseRevision: a.revision - uint64(len(rows)), Revision: a.revision, HeadRevision: a.revision, Digest: a.digest,
		Rows: rows, Events: events,
	})
}

// Valid is a summary of a certificate that is in service, from a day before now
// to a time after it. Serial number and fingerprint follow from the first name.
func Valid(now time.Time, left time.Duration, names ...string) wire.Summary {
	now = now.UTC().Truncate(time.Second)
	sum := sha256.Sum256([]byte(names[0]))
	fingerprint := hex.EncodeToString(sum[:])
	return wire.Summary{
		Names: pki.MustParseNames(names...), State: wire.StateValid, Issuer: "letsencrypt", IssuerKind: "acme",
		Serial: fingerprint[:16], Fingerprint: fingerprint, IssuerDN: "CN=Example CA", KeyAlgorithm: "ecdsa-p256",
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(left), RenewAt: now.Add(left / 2), Renewals: 1,
		Deployments: []wire.DeploymentSummary{{ID: "nginx", State: wire.DeploymentVerified, Fingerprint: fingerprint, At: now}},
	}
}
