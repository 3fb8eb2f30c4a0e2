//go:build linux

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/issuers/issuerstest"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/served"
	"github.com/certctl/certctl/shared/pki"
)

// slowKinds are the authorities that take their time.
var slowKinds = []string{"digicert", "entrust", "globalsign", "sectigo"}

// faulty is an authority of which a fifth of the answers is lost after it has acted
// upon the request, a tenth are errors, and a twentieth say that it is asked too much.
// Where there is no time for a soak, it is half of that: it is the unluckiest order that
// is waited for.
func faulty(seed uint64) fakeca.Config {
	share := 1.0
	if !soaking() {
		share = 0.5
	}
	return fakeca.Config{
		Seed: seed, Delay: 2 * time.Second, Spread: 8 * time.Second,
		Rates: fakeca.Rates{Lost: 0.2 * share, Errors: 0.1 * share, Busy: 0.05 * share, RetryAfter: time.Second},
	}
}

// visible is how long a new order may take to be found at these authorities: at two of
// them a search shows certificates alone, and none that is not issued yet.
var visible = map[string]string{"digicert": "2s", "sectigo": "2s", "entrust": "15s", "globalsign": "15s"}

// issuersSection is the section of the coordinator's file, with an issuer for each of
// the authorities, named as its kind.
func issuersSection(authorities []*served.Server) string {
	var text strings.Builder
	text.WriteString("issuers:\n")
	for _, a := range authorities {
		a.Set("visible_after", visible[a.Kind])
		fmt.Fprintf(&text, "  %s:\n    limits: {rate: 100, burst: 20, concurrency: 8}\n%s", a.Kind, a.Settings("    "))
	}
	return text.String()
}

// withIssuers has each node find the text in its configuration file.
func withIssuers(text string) func(*coordinator) {
	return func(c *coordinator) {
		require.NoError(c.t, os.WriteFile(filepath.Join(c.home, "coordinator.yaml"), []byte(text), 0o600))
	}
}

// Hosts order at four slow authorities whose answers get lost, by way of three
// coordinators whose leader is killed every few seconds, so many times. Every
// certificate arrives, and the authorities have one order for each. Kills without an
// end would hold up those orders for ever that are looked for among hundreds of
// others, one request each: no leader would come to the last of them.
func TestSlowOrdersWhileLeadersAreKilled(t *testing.T) {
	t.Parallel()
	hosts, perHost := times(2, 5), times(10, 200)
	total := hosts * perHost
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))

	var authorities []*served.Server
	for i, kind := range slowKinds {
		authorities = append(authorities, issuerstest.Serve(t, kind, faulty(seed+uint64(i))))
	}
	c := &cluster{t: t, program: filepath.Join(binDir, "certctl-coordinator"), prepare: withIssuers(issuersSection(authorities))}
	c.start()

	dir := t.TempDir()
	file := func(host, i int, kind string) string {
		return filepath.Join(dir, fmt.Sprintf("%d-%03d.%s", host, i, kind))
	}
	var agents []*agent
	for host := range hosts {
		var certificates []section
		for i := range perHost {
			certificates = append(certificates, certificate(
				fmt.Sprintf("c%03d", i), "coordinator/"+slowKinds[i%len(slowKinds)], fmt.Sprintf("c%03d.host%d.example.com", i, host),
				section{"files": section{"fullchain": file(host, i, "pem"), "key": file(host, i, "key")}},
			))
		}
		a := newAgent(t, fmt.Sprintf("the agent of host %d", host), section{"certificates": certificates})
		a.enroll(c.nodes[0], "**.example.com")
		agents = append(agents, a)
	}
	for _, a := range agents {
		a.startAndAwait()
	}

	limit := 9 * time.Minute
	if soaking() {
		limit = 40 * time.Minute
	}
	killed, kills, deadline := 0, times(6, 60), time.Now().Add(limit)
	for !allSettled(agents) && time.Now().Before(deadline) {
		pause(t.Context(), 3*time.Second+time.Duration(random.Int64N(int64(3*time.Second))))
		if killed == kills {
			continue
		}
		leader := c.leader()
		c.nodes[leader].kill()
		killed++
		pause(t.Context(), time.Second)
		c.nodes[leader].start()
	}
	if !allSettled(agents) {
		c.tellOrders()
	}
	for _, a := range agents {
		require.Len(t, a.awaitSettled(time.Minute).Certificates, perHost)
	}

	serials := map[string]time.Time{} // of deployed certificates, and since when they are
	for host := range hosts {
		for i := range perHost {
			leaf := deployedLeaf(t, file(host, i, "pem"), file(host, i, "key"))
			require.NoError(t, leaf.VerifyHostname(fmt.Sprintf("c%03d.host%d.example.com", i, host)))
			info, err := os.Stat(file(host, i, "pem"))
			require.NoError(t, err)
			serials[pki.SerialHex(leaf)] = info.ModTime()
		}
	}
	assert.Len(t, serials, total)
	placed, twice, lost := 0, 0, total
	var took []time.Duration
	for _, a := range authorities {
		core := a.Fake.Core()
		placed += len(core.Ledger(nil))
		twice += len(core.Duplicates())
		for _, order := range core.Ledger(nil) {
			if newest := order.Newest(); newest != nil {
				if since, ok := serials[pki.SerialHex(newest.Leaf)]; ok {
					lost--
					took = append(took, since.Sub(newest.IssuedAt))
				}
			}
		}
		t.Logf("%s: %d requests to place and %d to search, for %d orders", a.Kind, core.Count(fakeca.Place), core.Count(fakeca.Search), len(core.Ledger(nil)))
	}
	require.Len(t, took, total)
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[(len(took)*99+99)/100-1]
	counts.Report(t, "slow-orders", placed, fmt.Sprintf("orders at four slow authorities whose answers got lost, while the leader was killed %d times; from issued to deployed p50 %d s, p99 %d s", killed, int(p50.Seconds()), int(p99.Seconds())))
	counts.Report(t, "slow-orders-twice", twice, "of them, orders for a key that was ordered for before")
	counts.Report(t, "slow-orders-lost", lost, fmt.Sprintf("of %d certificates, those that no host got", total))
	assert.Equal(t, total, placed)
	assert.Zero(t, twice)
	assert.Zero(t, lost)
	assert.Positive(t, killed)
}

// deployedLeaf is the certificate of a deployed pair, which has to be one.
func deployedLeaf(t testing.TB, certificate, key string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certificate, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	require.NoError(t, err)
	return leaf
}

// allSettled reports whether each of the agents has all that it is to have.
func allSettled(agents []*agent) bool {
	return !slices.ContainsFunc(agents, func(a *agent) bool {
		status, err := a.tryStatus()
		return err != nil || settled(status) != nil
	})
}

// tellOrders logs the orders that are not at their end.
func (c *cluster) tellOrders() {
	open, err := all[resource.Order](c.nodes[c.leader()], "/api/v1/orders", url.Values{"open": {"true"}})
	c.t.Logf("%d open orders, %v", len(open), err)
	for _, o := range open {
		c.t.Logf("%s of %s is %s since %s: %d attempts, %d polls, %d searches, next at %s; %s; %s; %s",
			o.Certificate, o.Issuer, o.Stage, o.RequestedAt, o.Attempts, o.Polls, o.Searches, o.NextAt, o.Detail, o.LastError, o.Mend)
	}
}
