package settings

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// CheckListen reports an address that no program can listen on: one that is not host:port, or whose port is a number
// that is none. 0 is a port that the kernel chooses, and a port may be the name of a service.
func CheckListen(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return fmt.Errorf("cannot use %q; expected host:port, such as :8443 or 127.0.0.1:8443", address)
	}
	if strings.Trim(port, "+-0123456789") != "" {
		return nil
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("cannot use %q: the port %s is not a number from 0 to 65535", address, port)
	}
	return nil
}
