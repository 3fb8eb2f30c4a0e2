//go:build linux

package e2e

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
	agentcall "github.com/certctl/certctl/agent/sync/call"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

// reporter is a host of which nothing is real but what it says: it reports one
// fact after the other, each until it is acknowledged, and goes from server to
// server as an agent does.
type reporter struct {
	t       testing.TB
	client  *http.Client
	base    *http.Transport
	servers []string
	id      string
	boot    string
	at      int    // of servers
	told    uint64 // facts

	mu   sync.Mutex
	acks []ack
}

// ack is an acknowledged fact.
type ack struct {
	sent, answered time.Time // of the attempt that succeeded
}

func newReporter(c *trio, first int) *reporter {
	c.t.Helper()
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(c.t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(c.t, err)
	token, err := wire.ParseEnrollmentToken(c.nodes[first].newToken().Token)
	require.NoError(c.t, err)
	body, err := json.Marshal(wire.EnrollRequest{
		Protocol: wire.Protocol, Token: token.Reveal(), CSR: csr, Host: wire.HostReport{Hostname: fmt.Sprintf("reporter%d", first)},
	})
	require.NoError(c.t, err)
	r := &reporter{t: c.t, servers: c.urls(), at: first, boot: rand.Text()}
	var enrolled wire.EnrollResponse
	pin := tlsutil.PinnedRoot(token.RootPin)
	r.connect(tlsutil.ClientOptions{Pin: &pin, ServerName: "127.0.0.1"})
	_, err = agentcall.Post(c.t.Context(), r.client, r.servers[first], wire.EnrollPath, body, &enrolled)
	require.NoError(c.t, err)
	r.base.CloseIdleConnections()

	chain, err := pki.ParseChainPEM([]byte(enrolled.Chain))
	require.NoError(c.t, err)
	roots := x509.NewCertPool()
	require.True(c.t, roots.AppendCertsFromPEM([]byte(enrolled.Roots)))
	source := new(tlsutil.CertSource)
	require.NoError(c.t, source.Set(chain, key))
	r.connect(tlsutil.ClientOptions{Roots: roots, Source: source})
	c.t.Cleanup(r.base.CloseIdleConnections)
	r.id = enrolled.AgentID
	return r
}

func (r *reporter) connect(options tlsutil.ClientOptions) {
	r.t.Helper()
	config, err := tlsutil.ClientConfig(options)
	require.NoError(r.t, err)
	r.base = &http.Transport{
		TLSClientConfig: config, DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		TLSHandshakeTimeout: 4 * time.Second, ResponseHeaderTimeout: 7 * time.Second,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
	}
	r.client = &http.Client{Transport: r.base}
}

// report reports facts until ctx is done.
func (r *reporter) report(ctx context.Context) {
	for ctx.Err() == nil {
		r.told++
		for ctx.Err() == nil && !r.tell(ctx) {
			pause(ctx, time.Duration(20+mathrand.IntN(80))*time.Millisecond)
		}
		pause(ctx, time.Duration(5+mathrand.IntN(20))*time.Millisecond)
	}
}

// tell asks each server once to store the newest fact.
func (r *reporter) tell(ctx context.Context) (acknowledged bool) {
	body, err := json.Marshal(wire.SyncRequest{
		Protocol: wire.Protocol, BootID: r.boot, Sequence: r.told, SentAt: time.Now(), Host: wire.HostReport{Hostname: "reporter"},
		Events: []wire.Event{{Sequence: r.told, At: time.Now(), Kind: wire.EventIssued, Certificate: fmt.Sprintf("fact%d", r.told)}},
	})
	if err != nil {
		panic(err)
	}
	for range r.servers {
		var answer wire.SyncResponse
		sent := time.Now()
		_, err := agentcall.Post(ctx, r.client, r.servers[r.at], wire.SyncPath, body, &answer)
		if err == nil {
			if answer.Event != r.told {
				r.t.Errorf("the answer acknowledges fact %d of %d", answer.Event, r.told)
			}
			r.mu.Lock()
			r.acks = append(r.acks, ack{sent: sent, answered: time.Now()})
			r.mu.Unlock()
			return true
		}
		if ctx.Err() != nil || agentcall.Overloaded(err) {
			return false
		}
		if agentcall.Decided(err) {
			r.t.Errorf("a sync was refused: %v", err)
			return false
		}
		r.at = (r.at + 1) % len(r.servers)
	}
	return false
}

// after is when the first fact was acknowledged by a leader that came after a
// moment; zero if none was. What is answered at once to a request that was sent
// before may be the old leader's last word.
func (r *reporter) after(moment time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, _ := slices.BinarySearchFunc(r.acks, moment, func(a ack, m time.Time) int { return a.answered.Compare(m) })
	for _, a := range r.acks[i:] {
		if !a.sent.Before(moment) || a.answered.Sub(moment) > 100*time.Millisecond {
			return a.answered
		}
	}
	return time.Time{}
}

// quantile is the smallest value that so large a part of a sorted list does not
// exceed.
func quantile(sorted []time.Duration, part float64) time.Duration {
	return sorted[max(0, int(math.Ceil(part*float64(len(sorted))))-1)]
}

func spreadOf(list []time.Duration) string {
	slices.Sort(list)
	round := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	return fmt.Sprintf("p50 %v, p99 %v, longest %v, of %d", round(quantile(list, 0.5)), round(quantile(list, 0.99)), round(list[len(list)-1]), len(list))
}

// strikes has hosts report facts to all three nodes, and strikes the leader so
// many times, which is mended when each host has had its next fact acknowledged.
// It returns how long that took, for the first one and for each one, from the
// moment when the leader was struck.
func (c *trio) strikes(reporters []*reporter, times int, strike func(leader *coordinator) (mend func())) (first, each []time.Duration) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	var reporting sync.WaitGroup
	for _, r := range reporters {
		reporting.Go(func() { r.report(ctx) })
	}
	acknowledged := func(since time.Time) {
		c.t.Helper()
		for _, r := range reporters {
			await(c.t, 2*time.Minute, "facts are acknowledged", func() error {
				if r.after(since).IsZero() {
					return fmt.Errorf("none of %s", r.id)
				}
				return nil
			})
		}
	}
	for range times {
		c.awaitWhole()
		leader := c.leader()
		acknowledged(time.Now())
		pause(ctx, time.Duration(mathrand.IntN(500))*time.Millisecond)
		struck := time.Now()
		mend := strike(leader)
		down := time.Now()
		acknowledged(down)
		soonest := time.Duration(math.MaxInt64)
		for _, r := range reporters {
			took := r.after(down).Sub(struck)
			each, soonest = append(each, took), min(soonest, took)
		}
		first = append(first, soonest)
		mend()
	}
	c.awaitWhole()
	cancel()
	reporting.Wait()
	return first, each
}

// check finds each acknowledged fact once on every node.
func (c *trio) check(reporters []*reporter) (acknowledged, lost, twice int) {
	c.t.Helper()
	for _, n := range c.nodes {
		acknowledged = 0
		for _, r := range reporters {
			acks := len(r.acks)
			acknowledged += acks
			seen := map[string]int{}
			await(c.t, time.Minute, n.name+" has the facts", func() error {
				clear(seen)
				for _, event := range n.facts(r.id) {
					seen[event.Object]++
				}
				for i := range acks {
					if seen[fmt.Sprintf("fact%d", i+1)] == 0 {
						return fmt.Errorf("fact %d is missing", i+1)
					}
				}
				return nil
			})
			for i := range acks {
				switch n := seen[fmt.Sprintf("fact%d", i+1)]; {
				case n == 0:
					lost++
				case n > 1:
					twice++
				}
			}
		}
	}
	assert.Zero(c.t, lost, "acknowledged facts lost")
	assert.Zero(c.t, twice, "facts stored twice")
	return acknowledged, lost, twice
}

// The leader is killed again and again while hosts report facts to all three
// nodes. How long that keeps a host from its next acknowledged fact is measured;
// every acknowledged fact is there once in the end, on every node; and a real agent
// that was given one node, which is among those that die, has gone on all the time.
func TestKillLeader(t *testing.T) {
	if !soaking() {
		t.Parallel() // a soak measures time
	}
	kills := times(4, 150)
	c := startTrio(t)
	a := newAgent(t, "an agent", section{"certificates": []section{certificate("www", "coordinator", "www.example.com")}})
	a.enroll(c.nodes[0], "*.example.com")
	a.startAndAwait()
	a.awaitSettled(2 * time.Minute)
	reporters := c.reporters()
	first, each := c.strikes(reporters, kills, func(leader *coordinator) func() {
		leader.kill()
		return leader.start
	})
	t.Logf("from kill -9 of the leader to the next acknowledged sync of any host: %s", spreadOf(first))
	t.Logf("from kill -9 of the leader to the next acknowledged sync of each host: %s", spreadOf(each))
	a.goesOn(c)
	acknowledged, lost, twice := c.check(reporters)
	counts.Report(t, "leader-kills", kills, "times that the leader of three processes was killed while hosts reported facts")
	counts.Report(t, "leader-kills-facts", acknowledged, "facts acknowledged around these kills")
	counts.Report(t, "leader-kills-facts-lost", lost, "of them, or that a node lacks")
	counts.Report(t, "leader-kills-facts-twice", twice, "of them, or that a node has twice")
	counts.Report(t, "leader-kills-p50-ms", int(quantile(each, 0.5).Milliseconds()), "half of the hosts had their next fact acknowledged so soon after the kill")
	counts.Report(t, "leader-kills-p99-ms", int(quantile(each, 0.99).Milliseconds()), "99 of 100 hosts had")
}

// The leader stands still, with its connections open and its port answering, until
// the others have done without it. Hosts that talk to it go elsewhere, and it comes
// back as one of them.
func TestKillLeaderByStandstill(t *testing.T) {
	if !soaking() {
		t.Parallel()
	}
	c := startTrio(t)
	reporters := c.reporters()
	stops := times(2, 50)
	first, each := c.strikes(reporters, stops, func(leader *coordinator) func() {
		leader.signal(syscall.SIGSTOP)
		return func() { leader.signal(syscall.SIGCONT) }
	})
	t.Logf("from SIGSTOP of the leader to the next acknowledged sync of any host: %s", spreadOf(first))
	t.Logf("from SIGSTOP of the leader to the next acknowledged sync of each host: %s", spreadOf(each))
	acknowledged, lost, twice := c.check(reporters)
	counts.Report(t, "leader-standstills", stops, "times that the leader of three processes stood still while hosts reported facts")
	counts.Report(t, "leader-standstills-facts", acknowledged, "facts acknowledged around them")
	counts.Report(t, "leader-standstills-facts-lost", lost, "of them, or that a node lacks")
	counts.Report(t, "leader-standstills-facts-twice", twice, "of them, or that a node has twice")
}

// reporters are one host for each node.
func (c *trio) reporters() (list []*reporter) {
	for i := range c.nodes {
		list = append(list, newReporter(c, i))
	}
	return list
}

// goesOn requires that an agent knows all nodes, talks to one of them, and renews
// a certificate there.
func (a *agent) goesOn(c *trio) {
	a.t.Helper()
	var status *control.Status
	await(a.t, 2*time.Minute, a.name+" is connected", func() (err error) {
		if status, err = a.tryStatus(); err != nil {
			return err
		}
		if status.Coordinator.State != control.ConnectionConnected || len(status.Enrollment.Nodes) != len(c.nodes) {
			return fmt.Errorf("it is %+v, and knows %v", status.Coordinator, status.Enrollment.Nodes)
		}
		return nil
	})
	assert.Equal(a.t, []string{c.nodes[0].url()}, status.Enrollment.Servers)
	assert.Contains(a.t, c.urls(), status.Coordinator.Server)
	before, err := a.certificate("www")
	require.NoError(a.t, err)
	require.Zero(a.t, a.call("renew", "www").status)
	await(a.t, 2*time.Minute, a.name+" renews", func() error {
		now, err := a.certificate("www")
		if err == nil && now.Serial == before.Serial {
			err = fmt.Errorf("it has the certificate of before")
		}
		return err
	})
}
