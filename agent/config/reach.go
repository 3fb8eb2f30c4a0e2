package config

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/certctl/certctl/shared/managed"
)

// Reach is where assignments may have this host connect to: one host:port, or
// every port of a network.
type Reach struct {
	address string
	network netip.Prefix
}

// ParseReach reads host:port, or a network in CIDR notation.
func ParseReach(text string) (Reach, error) {
	if network, err := netip.ParsePrefix(text); err == nil {
		return Reach{network: network.Masked()}, nil
	}
	host, _, err := net.SplitHostPort(text)
	managed.CheckAddress("", text, func(_ string, problem error) { err = problem })
	if err != nil || host == "" {
		return Reach{}, fmt.Errorf("cannot use %q; expected host:port with a port number, such as 10.0.0.7:443, or a network such as 10.0.0.0/24", text)
	}
	return Reach{address: text}, nil
}

// Covers reports whether a connection to address, host:port, is within reach. A
// network covers addresses only, since a name may lead anywhere; and those of a
// link, where clouds give a host its credentials, only if it is one of a link.
func (r Reach) Covers(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if r.address == "" {
		ip = ip.Unmap().WithZone("")
		return err == nil && r.network.Contains(ip) && (!linkLocal(ip) || linkLocal(r.network.Addr()))
	}
	listed, listedPort, splitErr := net.SplitHostPort(r.address)
	if splitErr != nil || listedPort != port {
		return false
	}
	if err == nil {
		listedIP, listedErr := netip.ParseAddr(listed)
		return listedErr == nil && listedIP.Unmap() == ip.Unmap()
	}
	return strings.EqualFold(listed, host)
}

func linkLocal(ip netip.Addr) bool { return ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() }
