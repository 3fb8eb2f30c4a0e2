package peer

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/clusterca"
)

// Reason is why a connection was refused, or something near it went wrong.
type Reason string

// Reasons.
const (
	reasonCertificate Reason = "certificate" // not of this cluster, or not that of a node
	reasonExpired     Reason = "expired"     // not valid at this time
	reasonHandshake   Reason = "handshake"   // no TLS 1.3 with a client certificate, or not in time
	reasonProtocol    Reason = "protocol"    // none that is spoken here
	reasonNotMember   Reason = "not_member"
	reasonKey         Reason = "key"     // not the one that the member is known by
	reasonBusy        Reason = "busy"    // too many connections
	reasonNotReady    Reason = "ready"   // nobody takes connections of this kind
	reasonCrowd       Reason = "crowd"   // ended for the sake of newer ones before it showed who it is
	reasonPort        Reason = "port"    // the port cannot accept
	reasonRefresh     Reason = "refresh" // the members could not be asked for
)

// refusalGap is how often the same refusal of the same peer is logged, and
// maxRefusals how many of them are remembered for that.
const (
	refusalGap  = time.Minute
	maxRefusals = 256
)

// refusals logs each kind of refusal of each peer once a minute, so that a node
// which comes again and again does not fill the log.
type refusals struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[refusal]time.Time
}

type refusal struct {
	reason Reason
	who    string
}

// note logs a refusal. who is the id of a node, or the host that a connection came
// from; "" if it is about nobody.
func (r *refusals) note(reason Reason, who, address, mend string, err error) {
	if !r.dueNow(refusal{reason, who}) {
		return
	}
	attributes := []any{"reason", string(reason)}
	if who != "" {
		attributes = append(attributes, "peer", who)
	}
	if address != "" {
		attributes = append(attributes, "address", address)
	}
	if err != nil {
		attributes = append(attributes, "err", err)
	}
	if mend != "" {
		attributes = append(attributes, "mend", mend)
	}
	r.log.Warn("a connection between nodes was not made", attributes...)
}

func (r *refusals) dueNow(what refusal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if at, ok := r.last[what]; ok && now.Sub(at) < refusalGap {
		return false
	}
	if len(r.last) >= maxRefusals {
		for other, at := range r.last {
			if now.Sub(at) >= refusalGap {
				delete(r.last, other)
			}
		}
		if len(r.last) >= maxRefusals {
			return false // many strangers at a time; they are counted
		}
	}
	if r.last == nil {
		r.last = map[refusal]time.Time{}
	}
	r.last[what] = now
	return true
}

// refuseHandshake counts and logs that a connection did not get as far as to say
// who it is.
func (n *Network) refuseHandshake(raw net.Conn, err error) {
	if n.life.Err() != nil {
		return
	}
	reason := reasonHandshake
	switch {
	case errors.Is(err, clusterca.ErrNotNow):
		reason = reasonExpired
	case errors.Is(err, clusterca.ErrUntrusted), errors.Is(err, clusterca.ErrNotNode):
		reason = reasonCertificate
	case errors.Is(err, errNoProtocol):
		reason = reasonProtocol
	}
	n.counted.refuse(reason)
	if reason == reasonHandshake && errors.Is(err, io.EOF) {
		return // somebody only looked whether the port is open, as load balancers do
	}
	n.refused.note(reason, host(raw), raw.RemoteAddr().String(), mendOf(err), err)
}

// refuse counts and logs that a node was not let in.
func (n *Network) refuse(c *conn, v verdict) {
	reason, mend := reasonNotReady, ""
	switch v {
	case verdictNotMember:
		reason = reasonNotMember
		mend = "if the node was removed on purpose, stop it; else let it join again, with an empty data directory and a new token (certctl cluster join-token create)"
	case verdictOtherKey:
		reason = reasonKey
		mend = "if that node has lost its key, " + ownKeyMend + "; if it has not, somebody who has the seal key poses as it"
	case verdictBusy:
		reason, mend = reasonBusy, "restart the node that holds so many connections, and see its log"
	case verdictStopping:
		return
	}
	n.counted.refuse(reason)
	n.refused.note(reason, c.key.Peer, c.raw.RemoteAddr().String(), mend, nil)
}

// mendOf is what to do about a failed handshake; "" if there is no advice.
func mendOf(err error) string {
	switch {
	case errors.Is(err, clusterca.ErrNotNow):
		return "compare the clocks of both hosts; a node renews its own certificate as soon as its clock is right"
	case errors.Is(err, clusterca.ErrUntrusted):
		return "see whether this node and that one were joined to the same cluster; a node that was cut off while the root was rotated has to join again"
	case errors.Is(err, clusterca.ErrNotNode):
		return "only coordinators connect to this port; agents use the port of the API"
	case isRemoteAlert(err):
		return "the other node does not accept this node's certificate: compare the clocks of both hosts, and see its log"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "see whether something between the hosts delays or drops the connection"
	default:
		return ""
	}
}

// isRemoteAlert reports whether the other side ended the handshake with an alert.
func isRemoteAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func host(raw net.Conn) string {
	address := raw.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}
