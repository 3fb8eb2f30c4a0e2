//go:build linux

package e2e

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/issuer/acme"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// maxReadyCPU is the processor time that an agent with 10,000 certificates may
// use until it is ready. 2.2 s (2.1 to 2.5) were measured on two processors of a
// server with nothing else to do, 2.9 s with twenty other programs that computed
// beside it there; the rest is for slower processors.
const maxReadyCPU = 6 * time.Second

// Ten thousand certificates on one host: the agent starts, does what is due and
// answers, and writes nothing that did not change. Measured are the times to be
// ready and over the first visit, that of a status, and what is resident: they are
// reported, and are seconds at most on a machine that has nothing else to do.
// Asserted is only what holds beside other tests and under the race detector,
// where all of that takes many times as long: that the first visit comes at all,
// and what the start costs, since the agent's processor time does not grow with
// the load of the machine, but for what its neighbours take of the caches.
// How the cost grows is for agent/renewal's tests, which count steps.
func TestTenThousandCertificates(t *testing.T) {
	const n = 10_000
	notify := filepath.Join(t.TempDir(), "notify")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	require.NoError(t, err)
	defer ready.Close()

	a := newAgent(t, "the agent", nil)
	a.env = append(a.env, "NOTIFY_SOCKET="+notify)
	a.daemon.env = a.env
	require.NoError(t, os.WriteFile(a.config, []byte(deployedByTheThousand(a, n)), 0o600))
	fillState(t, a.state, n)

	path := filepath.Join(a.state, "state.db")
	began := time.Now()
	a.start()
	require.NoError(t, ready.SetReadDeadline(began.Add(3*time.Minute)))
	message := make([]byte, 256)
	for text := ""; !strings.Contains(text, "READY=1"); {
		size, err := ready.Read(message)
		require.NoError(t, err, a.output.tail())
		text = string(message[:size])
	}
	atReady := time.Since(began)
	cpuAtReady := cpuTime(t, a.cmd.Process.Pid)
	await(t, 3*time.Minute, "the first visit", func() error {
		if !strings.Contains(a.output.tail(), "renewal attempt failed") {
			return errors.New("not yet")
		}
		return nil
	})
	atWork := time.Since(began)

	before, err := os.Stat(path)
	require.NoError(t, err)
	asked := time.Now()
	status := a.status()
	took := time.Since(asked)
	require.Len(t, status.Certificates, n)
	asked = time.Now()
	list := a.call("list")
	listed := time.Since(asked)
	require.Zero(t, list.status)
	asked = time.Now()
	drill := a.call("drill", "--network-down", "30d", "--output", "json")
	drilled := time.Since(asked)
	assert.Contains(t, drill.stdout, `"certificates"`, drill.stderr)
	pause(t.Context(), 2*time.Second)
	rss := residentSize(t, a.cmd.Process.Pid)
	after, err := os.Stat(path)
	require.NoError(t, err)

	t.Logf("%d certificates: list %v, drill %v; state file %.1f MiB", n, listed.Round(time.Millisecond), drilled.Round(time.Millisecond), mib(after.Size()))
	milliseconds := func(name string, took time.Duration, what string) {
		counts.Report(t, "ten-thousand-"+name, int(took.Milliseconds()), "milliseconds "+what)
	}
	milliseconds("ready", atReady, "from the start of an agent with 10000 certificates until it is ready")
	milliseconds("ready-cpu", cpuAtReady, "of processor time until then")
	milliseconds("first-visit", atWork, "from its start until its first visit of a certificate is over")
	milliseconds("status", took, "for its status")
	counts.Report(t, "ten-thousand-resident", int(rss>>10), "KiB resident of that agent")
	assert.Equal(t, before.Size(), after.Size(), "the state file does not grow")
	assert.LessOrEqual(t, cpuAtReady, maxReadyCPU, "processor time until it is ready")
	a.stop()
}

// deployedByTheThousand is a configuration as people write it, with everything
// that a web server's certificate needs.
func deployedByTheThousand(a *agent, n int) string {
	var text strings.Builder
	// Nobody is there: the one certificate that is due fails, which is how its
	// visit is seen.
	fmt.Fprintf(&text, `state_dir: %s
control:
  socket: %s
issuers:
  le:
    acme: {directory: 'https://127.0.0.1:1/directory', terms_agreed: true}
  other:
    acme: {directory: 'https://127.0.0.1:1/other', terms_agreed: true}
certificates:
`, a.state, filepath.Join(a.home, "a.sock"))
	for i := range n {
		fmt.Fprintf(&text, `  - name: c%05[1]d
    names: [c%05[1]d.example.com]
    issuer: le
    fallback_issuers: [other]
    deployments:
      - files:
          fullchain: %[2]s/c%05[1]d.pem
          key: %[2]s/c%05[1]d.key
          create_directories: true
        check: [/bin/true]
        reload: [/bin/true]
        verify: {address: '127.0.0.1:1', server_name: c%05[1]d.example.com}
`, i, filepath.Join(a.home, "tls"))
	}
	return text.String()
}

// fillState makes the state of an agent that has had its certificates for a
// while, of which one is due.
func fillState(t *testing.T, dir string, n int) {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	le, err := acme.New(acme.Config{
		Name: "le", DirectoryURL: "https://127.0.0.1:1/directory", TermsAgreed: true, Solver: acme.HTTP01{Listen: ":80"},
		Keys: noState{}, State: noState{}, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	var managed []renewal.Managed
	for i := range n {
		managed = append(managed, renewal.Managed{
			Name: fmt.Sprintf("c%05d", i), Names: pki.MustParseNames(fmt.Sprintf("c%05d.example.com", i)), KeyAlgorithm: pki.ECDSAP256,
			Issuers: []renewal.NamedIssuer{{Name: "le", Issuer: issuer.Issuer(le)}},
		})
	}
	subjects, err := renewal.SubjectsOf(managed, renewal.Rest{}, 0, now)
	require.NoError(t, err)
	// A chain of the usual size.
	chain := strings.Repeat("-----BEGIN CERTIFICATE-----\n"+strings.Repeat("MIIB", 400)+"\n-----END CERTIFICATE-----\n", 2)
	s, err := store.Open(filepath.Join(dir, "state.db"), store.Options{})
	require.NoError(t, err)
	const batch = 1000
	for begin := 0; begin < n; begin += batch {
		names := make([]string, 0, batch)
		for _, subject := range subjects[begin:min(begin+batch, n)] {
			names = append(names, subject.Record.Name)
		}
		require.NoError(t, s.UpdateAll(names, func(tx *store.CertificateTx) error {
			var i int
			if _, err := fmt.Sscanf(tx.Record.Name, "c%05d", &i); err != nil {
				return err
			}
			subject := subjects[i]
			issuedAt := now.Add(-time.Duration(i) * 50 * 24 * time.Hour / time.Duration(n))
			*tx.Record = *subject.Record
			tx.Record.Current = &store.Generation{
				Number: 1, KeyID: fmt.Sprintf("k%05d", i), KeyAlgorithm: pki.ECDSAP256, ChainPEM: chain, Serial: fmt.Sprintf("%08x", i),
				Fingerprint: fmt.Sprintf("%064x", i), NotBefore: issuedAt, NotAfter: issuedAt.Add(90 * 24 * time.Hour), IssuedAt: issuedAt,
				ConfigDigest: subject.ConfigDigest, Issuer: "le",
			}
			// A newer pair is in service, one that was abandoned since: there is
			// nothing to do, whereas the files of the current one would be looked at
			// after a start, and there are none.
			tx.Record.Deployments = map[string]store.Deployment{"1": {
				Generation: 2, Outcome: wire.DeploymentVerified, Fingerprint: fmt.Sprintf("%064x", n+i), NotAfter: issuedAt.Add(90 * 24 * time.Hour), At: issuedAt,
			}}
			tx.Record.RenewAt = issuedAt.Add(60 * 24 * time.Hour)
			if i == 0 {
				tx.Record.RenewAt = now.Add(-time.Minute)
			}
			tx.Record.NextAction, tx.Record.Renewals = tx.Record.RenewAt, 1
			return nil
		}))
	}
	require.NoError(t, s.Close())
}

// noState is for an issuer that is never called.
type noState struct{}

var errNoState = errors.New("there is no state")

func (noState) Create(pki.KeyAlgorithm) (string, crypto.Signer, error) { return "", nil, errNoState }
func (noState) Load(string) (crypto.Signer, error)                     { return nil, errNoState }
func (noState) IssuerState(string) (json.RawMessage, error)            { return nil, errNoState }
func (noState) SaveIssuerState(string, json.RawMessage) error          { return errNoState }
