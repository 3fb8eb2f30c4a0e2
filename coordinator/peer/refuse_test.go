package peer

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/pki"
)

func TestAnotherClustersNode(t *testing.T) {
	w, other := newTown(t), newTown(t)
	a, foreign := w.member("a"), other.member("b")
	for _, town := range []*town{w, other} {
		town.members = map[string]string{"a": a.address, "b": foreign.address}
	}
	_, err := a.ask(foreign)
	require.ErrorIs(t, err, clusterca.ErrUntrusted)
	_, err = foreign.ask(a)
	require.ErrorIs(t, err, clusterca.ErrUntrusted, "it does not even show its own")

	// One that takes any server gets no further.
	_, err = foreign.visit(a, peerProtocol, foreign.identity.present().cert)
	require.Error(t, err)
	require.Eventually(t, func() bool { return a.Stats().Refused[reasonCertificate] == 1 }, patience, time.Millisecond)
}

// visit connects with a certificate of the visitor's choice, and trusts anybody. It
// returns what the other side answered.
func (r *resident) visit(to *resident, protocol string, certs ...tls.Certificate) (verdict, error) {
	return visit(r.town.t, to, &tls.Config{
		Certificates: certs, NextProtos: []string{protocol}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
	})
}

func visit(t testing.TB, to *resident, config *tls.Config) (verdict, error) {
	dialer := &tls.Dialer{Config: config}
	c, err := dialer.DialContext(within(t), "tcp", to.address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	var answer [1]byte
	_, err = io.ReadFull(c, answer[:])
	return verdict(answer[0]), err
}

// A clock that a test sets.
type clock struct{ at atomic.Int64 }

func (c *clock) set(at time.Time) *clock { c.at.Store(at.UnixNano()); return c }
func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }

func TestExpiredCertificate(t *testing.T) {
	w := newTown(t)
	a := w.member("a")
	past := new(clock).set(time.Now().Add(-12 * time.Hour))
	config := w.config("b")
	config.Now = past.now
	identity, err := Create(config, w.stored)
	require.NoError(t, err)
	b := w.settleAs(identity, true).start()
	answer, err := b.ask(a)
	require.NoError(t, err, "half a day is nothing")
	assert.Equal(t, "b echo hello", answer)
	a.CloseAll()

	end := identity.Leaf().NotAfter
	later := new(clock).set(end.Add(time.Hour))
	config = w.config("c")
	config.Now = later.now
	identity, err = Create(config, w.stored)
	require.NoError(t, err)
	c := w.settleAs(identity, true).start()
	past.set(later.now()) // b's clock is right; it has not renewed yet

	_, err = c.ask(b)
	require.ErrorIs(t, err, clusterca.ErrNotNow)
	require.ErrorContains(t, err, "compare the clocks")
	_, err = b.ask(c)
	require.ErrorContains(t, err, "does not accept this node's certificate")
	require.ErrorIs(t, err, ErrNotSent)
	require.Eventually(t, func() bool { return c.Stats().Refused[reasonExpired] == 1 }, patience, time.Millisecond)

	renewed, err := b.identity.Renew(false)
	require.NoError(t, err)
	require.True(t, renewed)
	answer, err = b.ask(c)
	require.NoError(t, err)
	assert.Equal(t, "b echo hello", answer)
	answer, err = c.ask(b)
	require.NoError(t, err)
	assert.Equal(t, "c echo hello", answer)
}

// Certificates of the built-in CA are nothing here, whatever they are for.
func TestCertificatesOfTheBuiltInCA(t *testing.T) {
	w := newTown(t)
	a := w.member("a")
	builtIn, err := ca.New(ca.Config{SealKey: w.seal.Reveal(), Name: "Example", LeafLifetime: time.Hour, IdentityLifetime: time.Hour})
	require.NoError(t, err)
	authorities, err := builtIn.Create()
	require.NoError(t, err)
	require.NoError(t, builtIn.Unseal(&fleet.CA{Authorities: authorities}))
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	names := pki.MustParseNames("a.example.com")
	for name, issue := range map[string]func() (*x509.Certificate, error){
		"identity of an agent": func() (*x509.Certificate, error) { return builtIn.IssueIdentity("a", key.Public()) },
		"server":               func() (*x509.Certificate, error) { return builtIn.IssueServer(names, key.Public()) },
		"leaf":                 func() (*x509.Certificate, error) { return builtIn.IssueLeaf(names, key.Public(), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			cert, err := issue()
			require.NoError(t, err)
			_, err = a.visit(a, raftProtocol, present(cert, key))
			require.Error(t, err)
		})
	}
	require.Eventually(t, func() bool { return a.Stats().Refused[reasonCertificate] == 3 }, patience, time.Millisecond)
}

func present(cert *x509.Certificate, key crypto.Signer) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func TestAnotherNodeAtTheAddress(t *testing.T) {
	w := newTown(t)
	a, b, c := w.member("a"), w.member("b"), w.member("c")
	w.members["b"], w.members["c"] = c.address, b.address
	_, err := a.Call(within(t), "b", c.address, "echo", nil)
	require.ErrorIs(t, err, ErrWrongNode)
	require.ErrorIs(t, err, ErrNotSent)
	_, err = a.StreamLayer().Dial("127.0.0.1:1", patience)
	require.ErrorIs(t, err, ErrNotMember, "nobody is expected there")
	_, err = a.StreamLayer().Dial(addressOf(c), patience)
	require.ErrorIs(t, err, ErrWrongNode)
	assert.Zero(t, c.Stats().Accepted)
}

func TestHandshakesThatAreRefused(t *testing.T) {
	w := newTown(t)
	a := w.member("a")
	own := a.identity.present().cert
	for name, c := range map[string]struct {
		config *tls.Config
		reason Reason
	}{
		"no certificate":   {&tls.Config{NextProtos: spoken, MinVersion: tls.VersionTLS13}, reasonHandshake},
		"TLS 1.2":          {&tls.Config{NextProtos: spoken, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own}}, reasonHandshake},
		"unknown protocol": {&tls.Config{NextProtos: []string{"h2", "certctl-raft/2"}, Certificates: []tls.Certificate{own}}, reasonProtocol},
		"no protocol":      {&tls.Config{Certificates: []tls.Certificate{own}}, reasonProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			before := a.Stats().Refused[c.reason]
			c.config.InsecureSkipVerify = true
			_, err := visit(t, a, c.config)
			require.Error(t, err)
			require.Eventually(t, func() bool { return a.Stats().Refused[c.reason] == before+1 }, patience, time.Millisecond)
		})
	}
	v, err := a.visit(a, raftProtocol, own)
	require.NoError(t, err)
	assert.Equal(t, verdictNotReady, v, "nobody takes streams of Raft yet")
	v, err = a.visit(a, peerProtocol, own)
	require.NoError(t, err)
	assert.Equal(t, verdictAccepted, v)
}

// Connections that say nothing, or nonsense, keep no member out, however many
// there are.
func TestGarbageKeepsNobodyOut(t *testing.T) {
	w := newTown(t)
	a := w.member("a", func(c *NetworkConfig) { c.MaxHandshakes = 8 })
	b := w.member("b")
	var silent []net.Conn
	defer func() {
		for _, c := range silent {
			c.Close()
		}
	}()
	const crowd = 1000
	for i := range crowd {
		c, err := net.Dial("tcp", a.address)
		require.NoError(t, err)
		if i%2 == 0 {
			_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: here\r\n\r\n")) // may have been ended by now
		}
		silent = append(silent, c)
		if i%100 != 0 {
			continue
		}
		b.CloseAll() // a new connection for each call
		answer, err := b.ask(a)
		require.NoError(t, err)
		require.Equal(t, "b echo hello", answer)
	}
	require.Eventually(t, func() bool {
		refused := a.Stats().Refused
		return refused[reasonCrowd]+refused[reasonHandshake] >= crowd-8
	}, patience, time.Millisecond)
	assert.LessOrEqual(t, a.Stats().Handshakes, 8)
	counts.Report(t, "peer-garbage-connections", crowd, "connections without a handshake, while members were served")
}

// A handshake that is not completed ends by itself.
func TestHandshakesEnd(t *testing.T) {
	w := newTown(t)
	a := w.member("a", func(c *NetworkConfig) { c.HandshakeTimeout = 50 * time.Millisecond })
	c, err := net.Dial("tcp", a.address)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	require.Eventually(t, func() bool { return a.Stats().Refused[reasonHandshake] == 1 && a.Stats().Handshakes == 0 }, patience, time.Millisecond)
}

func TestConnectionsAreBounded(t *testing.T) {
	w := newTown(t)
	a := w.member("a", func(c *NetworkConfig) { c.MaxFromPeer, c.MaxIncoming = 3, 4 })
	b, c := w.member("b"), w.member("c")
	layer := a.StreamLayer()
	defer layer.Close()
	streams, others := b.StreamLayer(), c.StreamLayer()
	for range 3 {
		_, err := streams.Dial(addressOf(a), patience)
		require.NoError(t, err)
	}
	_, err := streams.Dial(addressOf(a), patience)
	require.ErrorIs(t, err, ErrUnavailable, "from one node")
	_, err = others.Dial(addressOf(a), patience)
	require.NoError(t, err)
	_, err = others.Dial(addressOf(a), patience)
	require.ErrorIs(t, err, ErrUnavailable, "in all")
	assert.EqualValues(t, 2, a.Stats().Refused[reasonBusy])

	b.CloseAll()
	require.Eventually(t, func() bool {
		conn, err := layer.Accept()
		if err == nil {
			conn.Close()
		}
		_, err = streams.Dial(addressOf(a), patience)
		return err == nil
	}, patience, time.Millisecond, "there is room again")
}

// Streams that nobody takes are bounded too.
func TestTheQueueIsBounded(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	layer, streams := a.StreamLayer(), b.StreamLayer()
	for range queueLength {
		_, err := streams.Dial(addressOf(a), patience)
		require.NoError(t, err)
	}
	_, err := streams.Dial(addressOf(a), patience)
	require.ErrorIs(t, err, ErrUnavailable)
	conn, err := layer.Accept()
	require.NoError(t, err)
	defer conn.Close()
	_, err = streams.Dial(addressOf(a), patience)
	require.NoError(t, err)
	require.NoError(t, layer.Close())
	_, err = streams.Dial(addressOf(a), patience)
	require.ErrorIs(t, err, ErrUnavailable, "nobody takes them any more")
	require.Eventually(t, func() bool {
		_, raft := a.Stats().Connections[ConnectionKind{Peer: "b", Protocol: raftProtocol, Incoming: true}]
		return !raft
	}, patience, time.Millisecond)
}

// Refusals come to the log once a minute for each peer, and are all counted.
func TestRefusalsAreCountedAndSeldomLogged(t *testing.T) {
	w := newTown(t)
	logged := new(records)
	a := w.settleAs(func() *Identity {
		config := w.config("a")
		config.Log = logged.logger()
		identity, err := Create(config, w.stored)
		require.NoError(t, err)
		return identity
	}(), true).start()
	strangers := []*resident{w.settle("one", false).start(), w.settle("other", false).start()}
	var group sync.WaitGroup
	for _, s := range strangers {
		s.view = map[string]string{"a": a.address}
		for range 5 {
			group.Go(func() {
				_, err := s.ask(a)
				assert.ErrorIs(t, err, ErrNotMember)
			})
		}
	}
	group.Wait()
	assert.GreaterOrEqual(t, a.Stats().Refused[reasonNotMember], uint64(10))
	lines := logged.with("a connection between nodes was not made")
	require.Len(t, lines, 2)
	for _, line := range lines {
		assert.Contains(t, line, "certctl cluster join-token create")
		assert.Contains(t, line, "reason=not_member")
	}
}
