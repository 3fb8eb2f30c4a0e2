package testca

import (
	"context"
	"errors"
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
)

var (
	portsMu sync.Mutex
	handed  = map[int]bool{} // ports that this process has given out
)

// Port returns a TCP and UDP port of 127.0.0.1 on which nobody listens and
// which it has not returned before. Nothing holds it for the caller: who finds
// it taken after all asks for another. Safe for concurrent use.
func Port() (int, error) {
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if handed[port] || !free(port) {
			continue
		}
		handed[port] = true
		return port, nil
	}
	return 0, errors.New("no free port on 127.0.0.1 between 15000 and 31999")
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
