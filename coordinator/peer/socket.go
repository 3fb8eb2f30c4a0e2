package peer

import (
	"net"
	"time"
)

// keepAlive finds out within half a minute that the host at the other end is gone
// without a word. An idle connection is otherwise a good one: Raft keeps some for
// the next election.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}

// tune sets up a socket. A connection that is no socket, in a test, is as it is.
func tune(raw net.Conn) {
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(keepAlive) // without it a dead peer only costs the place longer
	limitUnacknowledged(tcp)
}
