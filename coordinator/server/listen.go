package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
)

// The settings that say where a coordinator listens, as errors name them.
const (
	ListenSetting     = "server.listen, CERTCTL_SERVER_LISTEN"
	PeerListenSetting = "cluster.listen, CERTCTL_CLUSTER_LISTEN"
)

// Listen opens a port on address, host:port, as a setting says it. Its errors say
// what to do about them.
func Listen(ctx context.Context, address, setting string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return listener, nil
	case errors.Is(err, errAddressInUse):
		return nil, fmt.Errorf("listen on %s: the port is in use: stop the program that has it, perhaps another coordinator, or set another address (%s): %w", address, setting, err)
	case errors.Is(err, errAddressUnknown):
		return nil, fmt.Errorf("listen on %s: this host does not have that address: set one that it has, or leave the host out to listen on all (%s): %w", address, setting, err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("listen on %s: not permitted: set a port from 1024 on (%s), or give the coordinator the right to low ports: %w", address, setting, err)
	default:
		return nil, fmt.Errorf("listen on %s: %w; check the address (%s)", address, err, setting)
	}
}
