//go:build linux

package testnet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func needHosts(t *testing.T) {
	t.Helper()
	if err := Usable(); Unusable(err) {
		t.Skipf("this process (uid %d) cannot make hosts: %v", os.Getuid(), err)
	}
}

// pair is two hosts that can send each other numbers.
type pair struct {
	*Network
	hosts [2]*Host
	conns [2]net.PacketConn
}

func newPair(t *testing.T) *pair {
	t.Helper()
	needHosts(t)
	p := &pair{Network: New()}
	t.Cleanup(func() { assert.NoError(t, p.Close()) })
	for i := range p.hosts {
		var err error
		p.hosts[i], err = p.Add()
		require.NoError(t, err)
		p.hosts[i].do(func() { p.conns[i], err = net.ListenPacket("udp4", p.hosts[i].Address().String()+":9") })
		require.NoError(t, err)
		t.Cleanup(func() { p.conns[i].Close() })
	}
	return p
}

// send has one of them send a number.
func (p *pair) send(from int, number uint64) error {
	_, err := p.conns[from].WriteTo(binary.BigEndian.AppendUint64(nil, number), p.conns[1-from].LocalAddr())
	return err
}

// receive is the next number that arrives at one of them.
func (p *pair) receive(t *testing.T, at int) uint64 {
	t.Helper()
	require.NoError(t, p.conns[at].SetReadDeadline(time.Now().Add(time.Minute)))
	buffer := make([]byte, 8)
	_, _, err := p.conns[at].ReadFrom(buffer)
	require.NoError(t, err)
	return binary.BigEndian.Uint64(buffer)
}

func TestAWholeNetworkCarriesAll(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for number := range uint64(200) {
		require.NoError(t, p.send(0, number))
		require.Equal(t, number, p.receive(t, 1))
		require.NoError(t, p.send(1, number))
		require.Equal(t, number, p.receive(t, 0))
	}
	require.Eventually(t, func() bool { return p.Traffic() == Traffic{Carried: 400} }, time.Minute, time.Millisecond)
}

func TestACutIsOfOneDirection(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, from := range []int{0, 1} {
		before := p.Traffic()
		p.Break(p.hosts[from], p.hosts[1-from], Fault{Cut: true})
		for number := range uint64(10) {
			require.NoError(t, p.send(from, number))
			require.NoError(t, p.send(1-from, number))
			require.Equal(t, number, p.receive(t, from))
		}
		require.Eventually(t, func() bool { return p.Traffic().Lost == before.Lost+10 }, time.Minute, time.Millisecond)
		require.NoError(t, p.Heal())
		require.NoError(t, p.send(from, 1000))
		assert.EqualValues(t, 1000, p.receive(t, 1-from), "nothing of before arrives")
	}
}

func TestLossIsAPart(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.Break(p.hosts[0], p.hosts[1], Fault{Loss: 0.5})
	const sent = 400
	for number := range uint64(sent) {
		require.NoError(t, p.send(0, number))
	}
	require.Eventually(t, func() bool { now := p.Traffic(); return now.Carried+now.Lost == sent }, time.Minute, time.Millisecond)
	assert.InDelta(t, sent/2, p.Traffic().Lost, 100, "ten standard deviations")
	p.Break(p.hosts[0], p.hosts[1], Fault{})
	require.NoError(t, p.send(0, sent))
	arrived, last := 0, uint64(0)
	for number := p.receive(t, 1); number != sent; number = p.receive(t, 1) {
		arrived++
		require.True(t, arrived == 1 || number > last, "in their order")
		last = number
	}
	assert.Equal(t, sent-p.Traffic().Lost, arrived)
}

func TestDelayKeepsTheOrder(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.Break(p.hosts[0], p.hosts[1], Fault{Delay: 80 * time.Millisecond, Jitter: 40 * time.Millisecond})
	const sent = 50
	began := time.Now()
	for number := range uint64(sent) {
		require.NoError(t, p.send(0, number))
	}
	for number := range uint64(sent) {
		require.Equal(t, number, p.receive(t, 1))
		require.GreaterOrEqual(t, time.Since(began), 40*time.Millisecond)
	}
	require.NoError(t, p.send(1, 0))
	p.receive(t, 0)
	require.Eventually(t, func() bool { return p.Traffic() == Traffic{Carried: sent + 1, Held: sent} }, time.Minute, time.Millisecond)
}

func TestAnInterfaceThatIsDown(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	require.NoError(t, p.hosts[1].SetUp(false))
	require.ErrorIs(t, p.send(1, 1), syscall.ENETUNREACH)
	require.NoError(t, p.send(0, 1))
	require.Eventually(t, func() bool { return p.Traffic().Lost == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, p.Heal())
	require.NoError(t, p.send(1, 2))
	require.EqualValues(t, 2, p.receive(t, 0))
}

// TCP between two hosts repeats what is lost.
func TestTCPOverALossyNetwork(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	var listener net.Listener
	var err error
	p.hosts[1].do(func() { listener, err = net.Listen("tcp4", p.hosts[1].Address().String()+":0") })
	require.NoError(t, err)
	for i := range p.hosts {
		p.Break(p.hosts[i], p.hosts[1-i], Fault{Loss: 0.1, Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond})
	}
	sent := []byte(strings.Repeat("a line of text\n", 50_000))
	var got []byte
	var group errgroup.Group
	group.Go(func() error {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		got, err = io.ReadAll(conn)
		return err
	})
	group.Go(func() (err error) {
		p.hosts[0].do(func() {
			var conn net.Conn
			if conn, err = net.DialTimeout("tcp4", listener.Addr().String(), time.Minute); err == nil {
				_, err = conn.Write(sent)
				err = errors.Join(err, conn.Close())
			}
		})
		return err
	})
	require.Eventually(t, func() bool { return p.Traffic().Lost >= 3 }, time.Minute, time.Millisecond)
	require.NoError(t, p.Heal())
	require.NoError(t, group.Wait())
	assert.True(t, bytes.Equal(sent, got))
	require.NoError(t, listener.Close())
}

// Programs run on a host and see nothing but its interfaces; those of this
// process are as they were.
func TestProgramsRunOnAHost(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	before, err := os.ReadFile("/proc/self/net/dev")
	require.NoError(t, err)
	cmd := exec.Command("cat", "/proc/self/net/dev")
	var out strings.Builder
	cmd.Stdout = &out
	require.NoError(t, p.hosts[0].Start(cmd))
	require.NoError(t, cmd.Wait())
	assert.Contains(t, out.String(), device)
	assert.Equal(t, 2, strings.Count(out.String(), ":"), "%s", out.String())
	after, err := os.ReadFile("/proc/self/net/dev")
	require.NoError(t, err)
	assert.NotContains(t, string(after), device)
	assert.Equal(t, strings.Count(string(before), ":"), strings.Count(string(after), ":"))
}

// A program does not outlive its host.
func TestProgramsEndWithTheirHost(t *testing.T) {
	t.Parallel()
	needHosts(t)
	n := New()
	h, err := n.Add()
	require.NoError(t, err)
	cmd := exec.Command("sleep", "600")
	require.NoError(t, h.Start(cmd))
	require.NoError(t, n.Close())
	require.Error(t, cmd.Wait())
	require.Error(t, h.Start(exec.Command("true")))
}

// A host that goes takes no program along that was started elsewhere, by whichever thread: programs are tied to threads.
func TestOtherProgramsOutliveHosts(t *testing.T) {
	needHosts(t)
	const programs = 30
	var started sync.WaitGroup
	commands := make(chan *exec.Cmd, programs)
	for range programs { // at the same time, so that many threads have one
		started.Go(func() {
			cmd := exec.Command("sleep", "600")
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if assert.NoError(t, cmd.Start()) {
				commands <- cmd
			}
		})
	}
	started.Wait()
	close(commands)
	n := New()
	for range 30 {
		_, err := n.Add()
		require.NoError(t, err)
	}
	require.NoError(t, n.Close())
	time.Sleep(100 * time.Millisecond) // a signal that was sent has arrived; without one, nothing is to be waited for
	for cmd := range commands {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		state, err := cmd.Process.Wait()
		require.NoError(t, err)
		assert.Equal(t, syscall.SIGTERM, state.Sys().(syscall.WaitStatus).Signal())
	}
}
