package peer

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// unacknowledged bounds how long what was sent may go without an answer of the
// other host before the connection is given up. Keep-alive probes are not sent
// while something is under way, and the system alone would wait a quarter of an
// hour.
const unacknowledged = 20 * time.Second

func limitUnacknowledged(raw *net.TCPConn) {
	control, err := raw.SyscallConn()
	if err != nil {
		return
	}
	_ = control.Control(func(fd uintptr) { // without it the connection only ends later
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
	})
}
