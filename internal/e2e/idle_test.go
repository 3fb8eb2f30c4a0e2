//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/internal/counts"
)

// An agent that has ten certificates and nothing to do costs next to nothing:
// no memory to speak of, no processor, and one small request per interval.
func TestIdleAgent(t *testing.T) {
	t.Parallel()
	const window, readings = 20 * time.Second, 5
	c := startCoordinator(t)
	proxy := startProxy(t, c.address)
	var certificates []section
	for i := range 10 {
		certificates = append(certificates, certificate(fmt.Sprintf("c%d", i), "coordinator", fmt.Sprintf("c%d.example", i)))
	}
	a := newAgent(t, "the agent", nil)
	// The intervals that are in force when nobody sets any.
	a.configure(section{"certificates": certificates, "renewal": section{}})
	a.enrolled(a.enrollWith("https://"+proxy.address, c.newToken("*.example").Token))
	a.startAndAwait()
	a.awaitSettled(2 * time.Minute)
	for i := range 10 {
		own, err := a.certificate(fmt.Sprintf("c%d", i))
		require.NoError(t, err)
		a.awaitReported(c, own.Name, own.Serial, 2*time.Minute)
	}
	// What the start has left to do, such as sweeps and the last reports, ends
	// before the window begins.
	ctx := t.Context()
	pause(ctx, 3*syncInterval)

	pid := a.cmd.Process.Pid
	requests, octets := proxy.counts()
	cpu := cpuTime(t, pid)
	began := time.Now()
	// What it holds is the least that is seen: the rest is garbage that waits
	// for the collector, and how much of it there is at one moment is chance.
	rss, most := int64(math.MaxInt64), int64(0)
	for range readings {
		pause(ctx, window/readings)
		now := residentSize(t, pid)
		rss, most = min(rss, now), max(most, now)
	}
	used, took := cpuTime(t, pid)-cpu, time.Since(began)
	requestsNow, octetsNow := proxy.counts()
	requests, octets = requestsNow-requests, octetsNow-octets
	binary, err := os.Stat(a.path)
	require.NoError(t, err)

	share := 100 * used.Seconds() / took.Seconds()
	t.Logf("idle with 10 certificates for %v: %v of processor time (%.2f %%), %d requests, %.1f to %.1f MiB resident",
		took.Round(time.Millisecond), used, share, requests, mib(rss), mib(most))
	counts.Report(t, "idle-resident-kib", int(rss>>10), "KiB that an idle agent with ten certificates holds in memory")
	counts.Report(t, "idle-request-octets", int(octets/max(requests, 1)), "octets that an idle agent sends in a request")
	counts.Report(t, "agent-binary-kib", int(binary.Size()>>10), "KiB of the agent's program")
	assert.LessOrEqual(t, rss, int64(20<<20), "octets resident")
	assert.Less(t, share, 2.0, "percent of one processor")
	assert.LessOrEqual(t, binary.Size(), int64(maxBinary), "octets of the binary")
	// The pauses are those of the coordinator, give or take a tenth each.
	// On a loaded machine they are longer, and never shorter.
	atMost := int64(took/(syncInterval*9/10)) + 1
	assert.LessOrEqual(t, requests, atMost, "one request per interval")
	assert.GreaterOrEqual(t, requests, atMost/4, "one request per interval")
	assert.Equal(t, control.ConnectionConnected, a.status().Coordinator.State)
}

// A program that looks methods up by names that it learns while it runs keeps
// every method of every type: with text/template, for one, the programs are 2 MiB
// larger, and an idle agent holds most of that in memory, since it ends up with
// nearly every page of its program. cobra links text/template only where it is
// given a template, as by SetVersionTemplate.
func TestUnusedMethodsAreLeftOut(t *testing.T) {
	for program, absent := range map[string]string{
		"certctl-agent": "reflect.Value.MethodByName", "certctl": "reflect.Value.MethodByName",
		"certctl-coordinator": "text/template.(*state).evalField",
	} {
		binary, err := os.ReadFile(filepath.Join(binDir, program))
		require.NoError(t, err)
		// The names of functions are there without a symbol table too.
		linked := func(function string) bool { return bytes.Contains(binary, []byte("\x00"+function+"\x00")) }
		assert.True(t, linked("main.main"), program)
		assert.False(t, linked(absent), "%s has %s", program, absent)
	}
}

func mib(octets int64) float64 { return float64(octets) / (1 << 20) }

// residentSize is what the process holds in memory, in octets.
func residentSize(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			require.NoError(t, err)
			return kib << 10
		}
	}
	require.FailNow(t, "no VmRSS", "/proc/%d/status:\n%s", pid, text)
	return 0
}

// cpuTime is the processor time that the process has used, in user and kernel.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	// After the name, which may hold anything: state is field 3, utime 14,
	// stime 15 (proc_pid_stat(5)), in hundredths of a second.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		require.NoError(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// proxy passes connections on and counts what the client sends. Octets that
// come in quick succession are one request: the agent makes one after another.
type proxy struct {
	address string

	mu       sync.Mutex
	open     map[net.Conn]bool
	last     time.Time
	requests int64
	octets   int64
}

// quiet is a pause that no request has in its middle.
const quiet = 300 * time.Millisecond

func startProxy(t *testing.T, to string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{address: listener.Addr().String(), open: make(map[net.Conn]bool)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.pass(conn, to) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.mu.Lock()
		for conn := range p.open {
			_ = conn.Close()
		}
		p.mu.Unlock()
		serving.Wait()
	})
	return p
}

func (p *proxy) pass(client net.Conn, to string) {
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", to)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	p.open[client], p.open[server] = true, true
	p.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	_, _ = io.Copy(io.MultiWriter(p, server), client)
	_ = server.Close()
	back.Wait()
	p.mu.Lock()
	delete(p.open, client)
	delete(p.open, server)
	p.mu.Unlock()
}

// Write counts.
func (p *proxy) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.last) > quiet {
		p.requests++
	}
	p.last = now
	p.octets += int64(len(b))
	return len(b), nil
}

func (p *proxy) counts() (requests, octets int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests, p.octets
}
