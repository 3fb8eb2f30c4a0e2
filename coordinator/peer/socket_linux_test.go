package peer

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A peer that vanished without a word is found by the system, within half a
// minute, on either side.
func TestDeadPeersAreFound(t *testing.T) {
	w := newTown(t)
	a, b := w.member("a"), w.member("b")
	out, in := stream(t, a, b)
	for _, c := range []net.Conn{out, in} {
		control, err := c.(*conn).raw.(*net.TCPConn).SyscallConn()
		require.NoError(t, err)
		option := func(level, name int) (value int) {
			require.NoError(t, control.Control(func(fd uintptr) {
				value, err = unix.GetsockoptInt(int(fd), level, name)
			}))
			require.NoError(t, err)
			return value
		}
		assert.NotZero(t, option(unix.SOL_SOCKET, unix.SO_KEEPALIVE))
		idle, interval, count := option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), option(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL), option(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		assert.LessOrEqual(t, idle+interval*count, 30, "seconds")
		assert.Equal(t, 20_000, option(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT), "milliseconds")
	}
}
