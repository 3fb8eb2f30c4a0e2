//go:build !linux

package peer

import "net"

// limitUnacknowledged leaves it to the system, which gives up by itself: Windows
// after some twenty seconds.
func limitUnacknowledged(*net.TCPConn) {}
