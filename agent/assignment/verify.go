package assignment

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/pki"
)

// allowVerify reports an address that the host does not let the centre have
// connected to: what answers there is told to the centre, which must not look
// into networks through its hosts.
func (h Host) allowVerify(at string, v *managed.Verify, names pki.Names) error {
	if v == nil || v.Address == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(v.Address)
	if err != nil || host == "" {
		return fmt.Errorf("%sverify.address: cannot use %q; expected host:port, such as 127.0.0.1:443", at, v.Address)
	}
	if h.listed(v.Address) {
		return nil
	}
	local, err := h.local(host, names)
	switch {
	case err != nil:
		return fmt.Errorf("%sverify.address: cannot tell the addresses of this host: %w", at, err)
	case local:
		return nil
	}
	line, err := json.Marshal(v.Address) // which is a text of YAML too
	if err != nil {
		return fmt.Errorf("%sverify.address: %w", at, err)
	}
	return fmt.Errorf("%sverify.address: this host does not let the coordinator have it connect there, but only to itself and to the certificate's names; "+
		"to allow it, add the line \"- %s\" below assignments.allow_verify in agent.yaml", at, line)
}

func (h Host) listed(address string) bool {
	return slices.ContainsFunc(h.Settings.Assignments.AllowVerify, func(entry string) bool {
		e, err := config.ParseReach(entry)
		return err == nil && e.Covers(address)
	})
}

// local reports whether a host is this one, or one that the certificate is for.
// Addresses of a link never are: clouds answer there with a host's credentials.
func (h Host) local(host string, names pki.Names) (bool, error) {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		name := strings.TrimSuffix(host, ".")
		return strings.EqualFold(name, "localhost") || (&x509.Certificate{DNSNames: names.DNS}).VerifyHostname(name) == nil, nil
	}
	ip = ip.Unmap()
	switch {
	case ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast():
		return false, nil
	case ip.IsLoopback() || slices.Contains(names.IPs, ip):
		return true, nil
	}
	addresses := h.Addresses
	if addresses == nil {
		addresses = net.InterfaceAddrs
	}
	own, err := addresses()
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == ip
	}), err
}
