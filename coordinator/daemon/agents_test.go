package daemon_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

// agentPatience bounds how long an agent waits for an answer.
const agentPatience = 2 * time.Minute

// ask sends one request of an agent to a node.
func ask(n *daemontest.Node, identity *tlsutil.CertSource, path string, body, answer any) error {
	config, err := tlsutil.ClientConfig(tlsutil.ClientOptions{Roots: n.Roots(), Source: identity})
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: agentPatience, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	response, err := client.Post(n.URL()+path, "application/json", bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

// A host enrols at one node and syncs at each of them; the leader stops and comes
// back, and whoever is asked answers all the same, at the latest when there is
// another leader. One place is enough for requests that come one by one.
func TestAgentsAtEveryNode(t *testing.T) {
	c := daemontest.Start(t, 3, func(int) daemontest.Options {
		return daemontest.Options{Change: func(s *config.Settings) { s.Fleet.MaxInFlight = 1 }}
	})
	stored, ok := c.Nodes[0].Node().State().View().CA()
	require.True(t, ok)
	root, err := x509.ParseCertificate(stored.Authorities[0].Certificate)
	require.NoError(t, err)
	leader := c.Leader()
	var follower *daemontest.Node
	for _, n := range c.Nodes {
		if n != leader {
			follower = n
		}
	}
	token := wire.EnrollmentToken{ID: "token1", RootPin: wire.PinOf(root)}
	_, _ = rand.Read(token.Secret[:])
	follower.Do(fleet.CreateEnrollmentToken{ID: token.ID, SecretHash: token.SecretHash(), MaxUses: 1, ExpiresAt: time.Now().Add(time.Hour)})
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	var enrolled wire.EnrollResponse
	require.NoError(t, ask(follower, nil, wire.EnrollPath, wire.EnrollRequest{Protocol: wire.Protocol, Token: token.Reveal(), CSR: csr}, &enrolled))
	chain, err := pki.ParseChainPEM([]byte(enrolled.Chain))
	require.NoError(t, err)
	identity := new(tlsutil.CertSource)
	require.NoError(t, identity.Set(chain, key))

	fact := uint64(0)
	var servers []string
	report := func(n *daemontest.Node) {
		t.Helper()
		fact++
		var answer wire.SyncResponse
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			require.NoError(t, ask(n, identity, wire.SyncPath, wire.SyncRequest{
				Protocol: wire.Protocol, BootID: "boot-one", Sequence: fact, ServersDigest: wire.ServersDigest(wire.CleanServers(servers)),
				Events: []wire.Event{{Sequence: fact, At: time.Now(), Kind: wire.EventIssued}},
			}, &answer))
		}, agentPatience, 50*time.Millisecond, "%s answers", n.ID)
		assert.Equal(t, fact, answer.Event)
		if answer.Servers != nil {
			servers = answer.Servers
		}
	}
	for range 3 {
		for _, n := range c.Nodes {
			report(n)
		}
	}
	var want []string
	for _, n := range c.Nodes {
		want = append(want, n.URL())
	}
	slices.Sort(want)
	require.Eventually(t, func() bool {
		report(follower)
		return slices.Equal(want, servers)
	}, agentPatience, 50*time.Millisecond, "the agent is told where the nodes are")

	leader.Stop()
	for _, n := range c.Nodes {
		if n.Running() {
			report(n)
			report(n)
		}
	}
	leader.Start()
	for _, n := range c.Nodes {
		report(n)
	}
	c.AwaitEqual()
	agent, ok := leader.Node().State().View().Agent(enrolled.AgentID)
	require.True(t, ok)
	assert.Equal(t, fact, agent.Sync.Event)
}
