package apitest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// certificatesOfHost is how many certificates a host of [Coordinator.Fleet] has.
const certificatesOfHost = 10

// Fleet enrols hosts that report so many certificates together, all of them well,
// in a few large log entries.
func (c *Coordinator) Fleet(certificates int) {
	c.t.Helper()
	const token, hosts = "fleet", 50 // in one entry
	c.do(fleet.CreateEnrollmentToken{
		Actor: "local", ID: token, NamePatterns: []string{"**.example.com"}, ExpiresAt: c.Now().Add(time.Hour),
	})
	var payloads []fleet.Payload
	for first := 0; first < certificates; first += certificatesOfHost {
		host := first / certificatesOfHost
		payloads = append(payloads, c.member(token, host, min(certificatesOfHost, certificates-first))...)
		if len(payloads) >= 2*hosts || first+certificatesOfHost >= certificates {
			c.do(payloads...)
			payloads = payloads[:0]
		}
	}
	require.Equal(c.t, certificates, c.State().View().Rows(fleet.TableCertificates))
}

// member is one host of a fleet: its enrolment and its first report.
func (c *Coordinator) member(token string, host, certificates int) []fleet.Payload {
	c.t.Helper()
	now := c.Now()
	id := fmt.Sprintf("agent%05d", host)
	safe := now.Add(30 * 24 * time.Hour).UTC().Truncate(time.Second)
	report := wire.HostReport{
		Hostname: fmt.Sprintf("host%05d.example.com", host), OS: "linux", Arch: "amd64", Version: "1.2.3",
		StartedAt: now.UTC(), SafeUntil: &safe,
	}
	sync := fleet.SyncAgent{
		AgentID: id, BootID: "boot-of-" + id, Sequence: 1, Host: &report,
		Revision: uint64(certificates), HeadRevision: uint64(certificates),
	}
	for i := range certificates {
		name := fmt.Sprintf("www%d.host%05d.example.com", i, host)
		summary := Valid(now, 60*24*time.Hour, name, "alt-"+name)
		summary.SafeUntil = summary.NotAfter
		data, err := json.Marshal(summary)
		require.NoError(c.t, err)
		row := wire.Row{Name: fmt.Sprintf("www%d", i), Revision: uint64(i + 1), Data: data}
		stored, err := fleet.NewRow(row)
		require.NoError(c.t, err)
		sync.Digest.Toggle(row.Hash())
		sync.Rows = append(sync.Rows, stored)
	}
	identity := fleet.Identity{Fingerprint: "f" + id, PublicKeyFingerprint: "k" + id, Serial: "0a", NotAfter: now.Add(24 * time.Hour).UTC()}
	return []fleet.Payload{
		fleet.EnrollAgent{TokenID: token, AgentID: id, Host: report, Identity: identity}, sync,
	}
}

// KeepInTouch lets every active agent have been heard of just now, or only these, as
// their syncs do that have nothing to say.
func (c *Coordinator) KeepInTouch(only ...string) {
	c.t.Helper()
	view, touch := c.State().View(), fleet.TouchAgents{}
	for page := (fleet.Page{Limit: fleet.MaxLimit}); ; {
		agents, next, err := view.Agents(fleet.AgentFilter{State: fleet.AgentActive}, page)
		require.NoError(c.t, err)
		for _, agent := range agents {
			if len(only) > 0 && !slices.Contains(only, agent.ID) {
				continue
			}
			touch.Seen = append(touch.Seen, fleet.Seen{Agent: agent.ID, At: c.Now()})
		}
		if page.Cursor = next; next == "" {
			break
		}
	}
	command, err := fleet.NewCommand(c.Now(), touch)
	require.NoError(c.t, err)
	results, err := c.Propose(context.Background(), command)
	require.NoError(c.t, err)
	require.NoError(c.t, results[0].Err())
}
