package pebble

import (
	"context"
	"path/filepath"

	"github.com/certctl/certctl/internal/testca"
)

// startDNS starts the challenge test server with nothing but its DNS: every
// name resolves to 127.0.0.1, and TXT records are set through its management
// interface.
func (s *Server) startDNS(ctx context.Context) error {
	process, err := testca.StartProcess(testca.Command{
		Path: filepath.Join(s.bin, "pebble-challtestsrv"),
		Args: []string{
			"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "",
			"-dnsserver", s.DNSAddress,
			"-management", loopback(s.ports.dnsManagement),
			"-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
		},
		Log: s.options.Log,
	})
	if err != nil {
		return err
	}
	s.dns = process
	return process.AwaitReady(ctx, readyLimit, func(ctx context.Context) error {
		return s.ClearTXT(ctx, "ready.invalid.")
	})
}

// SetTXT adds a TXT record. The name ends with a dot.
func (s *Server) SetTXT(ctx context.Context, name, value string) error {
	return s.post(ctx, s.DNSManagementURL+"/set-txt", map[string]string{"host": name, "value": value})
}

// ClearTXT removes all TXT records of the name, which ends with a dot.
func (s *Server) ClearTXT(ctx context.Context, name string) error {
	return s.post(ctx, s.DNSManagementURL+"/clear-txt", map[string]string{"host": name})
}

// SetServFail makes every query for the name, which ends with a dot, fail until
// ClearServFail.
func (s *Server) SetServFail(ctx context.Context, name string) error {
	return s.post(ctx, s.DNSManagementURL+"/set-servfail", map[string]string{"host": name})
}

// ClearServFail ends what SetServFail began.
func (s *Server) ClearServFail(ctx context.Context, name string) error {
	return s.post(ctx, s.DNSManagementURL+"/clear-servfail", map[string]string{"host": name})
}
