package daemon_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/issuers/issuerstest"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/served"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// orderOf is an order of a new key.
func orderOf(t *testing.T, id, issuer string) fleet.OrderPlacement {
	t.Helper()
	key, err := pki.GenerateKey("ecdsa-p256")
	require.NoError(t, err)
	names := pki.MustParseNames("www.example.com")
	csr, err := pki.CreateCSR(key, names)
	require.NoError(t, err)
	fingerprint, err := pki.PublicKeyFingerprint(key.Public())
	require.NoError(t, err)
	return fleet.OrderPlacement{ID: id, Certificate: id, Issuer: issuer, CSR: csr, Names: names, PublicKeyFingerprint: fingerprint}
}

// A coordinator orders at the accounts that its settings name, and asks about an order
// for as long as its environment says: here so shortly that the first question about
// an order that waits finds the budget spent, unless the issuer has one of its own. It
// runs alone: the budget of all is the process's.
func TestOrdersByWhatTheSettingsSay(t *testing.T) {
	text := "issuers:\n"
	var slow, atOnce []string
	for _, kind := range served.Kinds() {
		// A name for each, so that nobody takes one authority's order for another's.
		section := issuerstest.Serve(t, kind, fakeca.Config{}).Settings("    ")
		text += "  at-once-" + kind + ":\n" + section
		atOnce = append(atOnce, "at-once-"+kind)
		if served.AtOnce(kind) {
			continue
		}
		section = issuerstest.Serve(t, kind, fakeca.Config{Delay: 24 * time.Hour}).Settings("    ")
		text += "  plain-" + kind + ":\n" + section + "  own-" + kind + ":\n    poll_max_wait: 1h\n" + section
		slow = append(slow, kind)
	}
	kinds := []string{"CERTCTL_ASYNC_POLL_MAX_WAIT_SECONDS=3000"}
	for _, kind := range slow {
		kinds = append(kinds, "CERTCTL_"+strings.ToUpper(kind)+"_POLL_MAX_WAIT_SECONDS=2")
	}
	for name, env := range map[string][]string{"of each kind": kinds, "of all": {"CERTCTL_ASYNC_POLL_MAX_WAIT_SECONDS=2"}} {
		t.Run(name, func(t *testing.T) {
			loaded, err := issuerstest.Load(t, text, env...)
			require.NoError(t, err)
			n := daemontest.NewNode(t, "one", daemontest.Options{Change: func(s *config.Settings) { s.Issuers, s.Orders = loaded.Issuers, loaded.Orders }})
			n.Start()
			n.Do(fleet.CreateEnrollmentToken{
				Actor: "local", ID: "token", SecretHash: [32]byte{42}, NamePatterns: []string{"**.example.com"}, MaxUses: 1, ExpiresAt: time.Now().Add(time.Hour),
			})
			n.Do(fleet.EnrollAgent{
				TokenID: "token", SecretHash: [32]byte{42}, AgentID: "a", Names: pki.MustParseNames("www.example.com"),
				Identity: fleet.Identity{Certificate: []byte("a"), Fingerprint: "f", PublicKeyFingerprint: "k", Serial: "0a", NotAfter: time.Now().Add(time.Hour)},
				Host:     wire.HostReport{Hostname: "a", OS: "linux", Arch: "amd64", StartedAt: time.Now()},
			})
			var placed []fleet.OrderPlacement
			for _, issuer := range atOnce {
				placed = append(placed, orderOf(t, issuer, issuer))
			}
			for _, kind := range slow {
				placed = append(placed, orderOf(t, "plain-"+kind, "plain-"+kind), orderOf(t, "own-"+kind, "own-"+kind))
			}
			n.Do(fleet.SyncAgent{AgentID: "a", BootID: "boot", Sequence: 1, Orders: placed})
			order := func(id string) *fleet.Order {
				o, ok := n.Node().State().View().Order("a", id)
				require.True(t, ok, id)
				return o
			}
			for _, id := range atOnce {
				require.Eventually(t, func() bool { return order(id).Stage() == fleet.StageCollected }, patience, 20*time.Millisecond, "%s: %+v", id, order(id).Brokering)
				chain, err := pki.ParseChainPEM([]byte(order(id).ChainPEM))
				require.NoError(t, err, id)
				assert.GreaterOrEqual(t, len(chain), 2, id)
			}
			asked := func(id string) *fleet.Brokering {
				require.Eventually(t, func() bool { b := order(id).Brokering; return b != nil && b.Polls > 0 }, patience, 20*time.Millisecond, id)
				return order(id).Brokering
			}
			for _, kind := range slow {
				assert.Equal(t, fleet.StagePending, order("plain-"+kind).Stage(), kind)
				plain := asked("plain-" + kind)
				assert.True(t, plain.Slow, "%s: the budget of 2 s is spent", kind)
				assert.Greater(t, time.Until(plain.Next), time.Minute, kind)
				assert.False(t, asked("own-"+kind).Slow, "%s: its own budget is an hour", kind)
			}
			list := map[string]resource.Issuer{}
			page, err := administrator(t, n, n).ListIssuers(t.Context())
			require.NoError(t, err)
			for _, one := range page.Items {
				list[one.Name] = one
			}
			for _, kind := range slow {
				assert.EqualValues(t, 2, list["plain-"+kind].PollMaxWaitSeconds)
				assert.EqualValues(t, 3600, list["own-"+kind].PollMaxWaitSeconds)
				assert.Equal(t, 1, list["plain-"+kind].Orders, fmt.Sprint(list))
				assert.False(t, list["plain-"+kind].LastAnswerAt.IsZero())
				assert.Zero(t, list["at-once-"+kind].Orders)
			}
			figures := metricsOf(t, n)
			for _, kind := range slow {
				assert.Contains(t, figures, `certctl_orders{issuer="plain-`+kind+`",stage="pending"} 1`)
				assert.Contains(t, figures, `certctl_issuer_configured{issuer="plain-`+kind+`"} 1`)
				assert.Regexp(t, `certctl_issuer_calls_total\{call="place",issuer="plain-`+kind+`",outcome="ok"\} 1`, figures)
			}
		})
	}
}

// metricsOf is what a node tells a program that gathers figures.
func metricsOf(t *testing.T, n *daemontest.Node) string {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(n.Settings.DataDir, server.AdminTokenFile))
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.URL()+"/metrics", nil)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: n.Roots()}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: patience}).Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode, "%s", text)
	return string(text)
}
