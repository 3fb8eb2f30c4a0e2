package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
)

// Listen opens the server's port on address, host:port. Its errors say what to
// do about them.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return listener, nil
	case errors.Is(err, errAddressInUse):
		return nil, fmt.Errorf("listen on %s: the port is in use: stop the program that has it, perhaps another coordinator, or set another address (server.listen, CERTCTL_SERVER_LISTEN): %w", address, err)
	case errors.Is(err, errAddressUnknown):
		return nil, fmt.Errorf("listen on %s: this host does not have that address: set one that it has, or leave the host out to listen on all (server.listen, CERTCTL_SERVER_LISTEN): %w", address, err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("listen on %s: not permitted: set a port from 1024 on (server.listen, CERTCTL_SERVER_LISTEN), or give the coordinator the right to low ports: %w", address, err)
	default:
		return nil, fmt.Errorf("listen on %s: %w; check the address (server.listen, CERTCTL_SERVER_LISTEN)", address, err)
	}
}
