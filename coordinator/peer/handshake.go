package peer

import (
	"container/list"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/shared/pki"
)

// A verdict is the first octet that the side which was connected to sends after
// the handshake. In TLS 1.3 the side that connects is done before the other has
// looked at its certificate; the verdict tells it that it was let in, or why not,
// before it sends anything.
type verdict byte

const (
	verdictAccepted  verdict = 1
	verdictNotMember verdict = 2
	verdictBusy      verdict = 3
	verdictNotReady  verdict = 4
	verdictStopping  verdict = 5
	verdictOtherKey  verdict = 6
)

var (
	// ErrNotMember says that a node is not a member of the cluster.
	ErrNotMember = errors.New("the node is not a member of the cluster")
	// ErrWrongNode says that another node answered than the one expected.
	ErrWrongNode = errors.New("another node answers there")
	// ErrOtherKey says that a node shows another key than the one by which the
	// cluster knows the member that it says it is.
	ErrOtherKey = errors.New("the node's key is not the one that the cluster knows the member by")
	// ErrUnavailable says that a node takes no connections, or no requests, of
	// this kind now.
	ErrUnavailable = errors.New("the node is not available now")
)

// RefusedError says that the other side did not let this node in.
type RefusedError struct {
	Node string // that refused
	code verdict
}

// Error implements error.
func (e *RefusedError) Error() string {
	switch e.code {
	case verdictNotMember:
		return fmt.Sprintf("node %s does not know this node as a member of the cluster: it was removed, or %s has not heard yet that it was added", e.Node, e.Node)
	case verdictBusy:
		return fmt.Sprintf("node %s has too many connections from this node", e.Node)
	case verdictOtherKey:
		return fmt.Sprintf("node %s knows this node by another key: %s", e.Node, ownKeyMend)
	case verdictNotReady:
		return fmt.Sprintf("node %s is not ready for this kind of connection", e.Node)
	case verdictStopping:
		return fmt.Sprintf("node %s is stopping", e.Node)
	default:
		return fmt.Sprintf("node %s refused with the unknown code %d", e.Node, e.code)
	}
}

// ownKeyMend is what to do about a node whose key is not that of its record.
const ownKeyMend = "put " + Directory + "/" + keyFile + " of its data directory back from a backup, " +
	"or remove the node and let it join again, with an empty data directory and a new token (certctl cluster join-token create)"

// Is makes a refusal match ErrNotMember, ErrOtherKey or ErrUnavailable. Who has
// another key is no member either.
func (e *RefusedError) Is(target error) bool {
	switch e.code {
	case verdictNotMember:
		return target == ErrNotMember
	case verdictOtherKey:
		return target == ErrNotMember || target == ErrOtherKey
	default:
		return target == ErrUnavailable
	}
}

// greet finds out who connected, and hands the connection over.
func (n *Network) greet(pending *list.Element) {
	raw := pending.Value.(net.Conn)
	c, err := n.identify(raw)
	waited := n.donePending(pending)
	if err != nil {
		raw.Close()
		if waited { // else it was ended to make room, which was counted
			n.refuseHandshake(raw, err)
		}
		return
	}
	if !waited {
		raw.Close()
		return
	}
	n.admit(c)
}

// identify does the handshake of a connection that came.
func (n *Network) identify(raw net.Conn) (*conn, error) {
	tune(raw)
	if err := raw.SetDeadline(time.Now().Add(n.config.HandshakeTimeout)); err != nil {
		return nil, err
	}
	own := n.identity.present()
	c := &conn{raw: raw, network: n, own: own.leaf, roots: own.roots, since: time.Now()}
	var asked []string
	secured := tls.Server(raw, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{own.cert},
		ClientAuth:             tls.RequireAnyClientCert,
		NextProtos:             spoken,
		SessionTicketsDisabled: true,
		// Raft sends much at a time, often after a pause.
		DynamicRecordSizingDisabled: true,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			asked = hello.SupportedProtos
			return nil, nil
		},
		VerifyConnection: func(state tls.ConnectionState) (err error) {
			c.key.Peer, err = own.roots.Verify(state.PeerCertificates, clusterca.Client, n.identity.config.Now())
			if err == nil {
				c.shown, err = pki.PublicKeyFingerprint(state.PeerCertificates[0].PublicKey)
			}
			return err
		},
	})
	if err := secured.HandshakeContext(n.life); err != nil {
		if len(asked) > 0 && !slices.ContainsFunc(asked, func(p string) bool { return slices.Contains(spoken, p) }) {
			return nil, fmt.Errorf("%w: %w", errNoProtocol, err)
		}
		return nil, err
	}
	state := secured.ConnectionState()
	if state.NegotiatedProtocol == "" {
		return nil, errNoProtocol
	}
	c.Conn, c.chain = secured, state.PeerCertificates
	c.key.Protocol, c.key.Incoming = state.NegotiatedProtocol, true
	return c, nil
}

// spoken are the protocols of the port.
var spoken = []string{raftProtocol, peerProtocol}

var errNoProtocol = errors.New("no protocol was asked for that is spoken here")

// admit decides about a node that has shown who it is. It is counted in first: a
// removal that comes between the question whether it is a member and the handing
// over finds it there.
func (n *Network) admit(c *conn) {
	v := n.register(c)
	if v == verdictAccepted && n.outdated(c) {
		v = verdictNotReady
	}
	if v == verdictAccepted && !n.member(n.life, c.key.Peer) {
		v = verdictNotMember
	}
	if v == verdictAccepted && !n.rightKey(n.life, c) {
		v = verdictOtherKey
	}
	var deliver func(*conn)
	if v == verdictAccepted {
		deliver, v = n.receiver(c)
	}
	if v == verdictAccepted {
		n.counted.accepted.Add(1)
	} else {
		n.forget(c)
		n.refuse(c, v)
	}
	// Asking the members may have taken its time.
	err := c.SetDeadline(time.Now().Add(n.config.HandshakeTimeout))
	if err == nil {
		_, err = c.Write([]byte{byte(v)})
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	switch {
	case v != verdictAccepted:
		c.Close()
	case err != nil:
		c.Close()
		deliver(nil)
	default:
		deliver(c)
	}
}

// receiver reserves a place for a connection where those of its protocol go. The
// function that it returns is called once, with nil if the connection is lost.
func (n *Network) receiver(c *conn) (func(*conn), verdict) {
	queue := n.server.queue
	if c.key.Protocol == raftProtocol {
		n.mu.Lock()
		c.layer = n.streams
		n.mu.Unlock()
		if c.layer == nil {
			return nil, verdictNotReady
		}
		queue = c.layer.queue
	}
	if !queue.reserve() {
		return nil, verdictNotReady
	}
	return queue.put, verdictAccepted
}

// dial connects to a member and returns when it has let this node in.
func (n *Network) dial(ctx context.Context, id, address, protocol string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.config.HandshakeTimeout)
	defer cancel()
	stop := context.AfterFunc(n.life, cancel)
	defer stop()
	c, err := n.connect(ctx, id, address, protocol)
	if err != nil {
		n.counted.failed.Add(1)
		if n.life.Err() != nil {
			err = net.ErrClosed
		}
		return nil, fmt.Errorf("connect to node %s at %s: %w", id, address, err)
	}
	n.counted.dialled.Add(1)
	return c, nil
}

func (n *Network) connect(ctx context.Context, id, address, protocol string) (_ *conn, err error) {
	if !n.member(ctx, id) {
		return nil, ErrNotMember
	}
	raw, err := n.config.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			raw.Close()
		}
	}()
	tune(raw)
	own := n.identity.present()
	c := &conn{raw: raw, network: n, own: own.leaf, roots: own.roots, key: connKey{Peer: id, Protocol: protocol}, since: time.Now()}
	secured := tls.Client(raw, &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{own.cert},
		NextProtos:   []string{protocol},

		DynamicRecordSizingDisabled: true,
		// Nodes have ids and no host names: VerifyConnection does all of it.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) (err error) {
			if err := expect(id, own, state.PeerCertificates, n.identity.config.Now()); err != nil {
				return err
			}
			c.shown, err = pki.PublicKeyFingerprint(state.PeerCertificates[0].PublicKey)
			return err
		},
	})
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, n.explain(err)
	}
	state := secured.ConnectionState()
	if state.NegotiatedProtocol != protocol {
		return nil, fmt.Errorf("it does not speak %s", protocol)
	}
	c.Conn, c.chain = secured, state.PeerCertificates
	errKey := fmt.Errorf("%w: it is not node %s, or has lost its key: %s", ErrOtherKey, id, ownKeyMend)
	if !n.rightKey(ctx, c) {
		return nil, errKey
	}
	// A deadline of its own: HandshakeContext watches ctx no more.
	if deadline, ok := ctx.Deadline(); ok {
		if err := secured.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	var answer [1]byte
	_, err = io.ReadFull(secured, answer[:])
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, n.explain(fmt.Errorf("it ended the connection before it let this node in: %w", err))
	}
	if v := verdict(answer[0]); v != verdictAccepted {
		return nil, &RefusedError{Node: id, code: v}
	}
	if err := secured.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if n.register(c) != verdictAccepted {
		return nil, net.ErrClosed
	}
	// What has happened meanwhile did not find it before it was registered.
	switch {
	case !n.known(id):
		err = ErrNotMember
	case n.impostor(c):
		err = errKey
	case n.outdated(c):
		err = fmt.Errorf("the root was rotated meanwhile: %w", ErrUnavailable)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// expect checks that the other side is the node that it should be.
func expect(id string, own *credentials, chain []*x509.Certificate, now time.Time) error {
	got, err := own.roots.Verify(chain, clusterca.Server, now)
	if err != nil {
		return err
	}
	if got != id {
		return fmt.Errorf("%w: it is %s; look at the address of %s in the list of members (certctl cluster members)", ErrWrongNode, got, id)
	}
	return nil
}

// explain adds what to do about a failed handshake.
func (n *Network) explain(err error) error {
	if mend := mendOf(err); mend != "" {
		return fmt.Errorf("%w; %s", err, mend)
	}
	return err
}
