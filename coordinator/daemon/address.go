package daemon

import (
	"net"
	"strconv"

	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/server"
)

// advertised is the address that the other nodes are told: the one that is
// configured, or one that they may be able to reach: the address that the port is
// bound to, or this host's name if it is bound to all.
func advertised(s *config.Settings, names server.Names, listener net.Addr) string {
	if s.Cluster.Advertise != "" {
		return s.Cluster.Advertise
	}
	tcp, ok := listener.(*net.TCPAddr)
	if !ok {
		return listener.String()
	}
	host := names.Host()
	if !tcp.IP.IsUnspecified() {
		host = tcp.IP.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}
