package testca

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The range lies below the ports that operating systems give to outgoing
// connections: a port that the kernel chose would soon be taken again by some
// client socket while nobody listens on it.
const (
	firstPort = 15000
	lastPort  = 31999
	// blockSize is how many ports a process takes for itself at a time. Packages
	// are tested side by side, and what one of them has chosen and does not listen
	// on at the moment looks free to the other.
	blockSize = 500
)

// taken is what this process has of the range.
var taken struct {
	sync.Mutex
	// blocks are listeners on the first ports of blocks. Who holds one has the
	// rest of the block; the system closes it at the end of the process.
	blocks []net.Listener
	left   []int // ports of the blocks that were not handed out, in no order
}

// Port returns a TCP and UDP port of 127.0.0.1 on which nobody listens, and which
// neither this nor another process has from here. Nothing holds it for the caller
// against other programs: who finds it taken after all asks for another. Safe for
// concurrent use.
func Port() (int, error) {
	taken.Lock()
	defer taken.Unlock()
	for {
		for n := len(taken.left); n > 0; n-- {
			port := taken.left[n-1]
			taken.left = taken.left[:n-1]
			if free(port) {
				return port, nil
			}
		}
		if err := takeBlock(); err != nil {
			return 0, err
		}
	}
}

// takeBlock takes a block that nobody has.
func takeBlock() error {
	var config net.ListenConfig
	for _, block := range rand.Perm((lastPort - firstPort + 1) / blockSize) {
		first := firstPort + block*blockSize
		listener, err := config.Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(first)))
		if err != nil {
			continue
		}
		taken.blocks = append(taken.blocks, listener)
		for _, i := range rand.Perm(blockSize - 1) {
			taken.left = append(taken.left, first+1+i)
		}
		return nil
	}
	return fmt.Errorf("no ports of 127.0.0.1 between %d and %d are left", firstPort, lastPort)
}

// Ports returns n ports as Port does.
func Ports(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		var err error
		if ports[i], err = Port(); err != nil {
			return nil, err
		}
	}
	return ports, nil
}
func free(port int) bool {
	// Wildcard addresses too: a listener on all addresses would take what is
	// meant for the one on 127.0.0.1.
	var config net.ListenConfig
	for _, host := range []string{"127.0.0.1", ""} {
		address := net.JoinHostPort(host, strconv.Itoa(port))
		listener, err := config.Listen(context.Background(), "tcp", address)
		if err != nil {
			return false
		}
		_ = listener.Close()
		packet, err := config.ListenPacket(context.Background(), "udp", address)
		if err != nil {
			return false
		}
		_ = packet.Close()
	}
	return true
}
