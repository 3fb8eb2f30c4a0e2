package server

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/certctl/certctl/shared/pki"
)

// local are the names by which only this host reaches itself. They say nothing
// about who it is.
var local = []string{"localhost", "127.0.0.1", "::1"}

// Names are the names and addresses by which the server is reached.
type Names struct {
	// All stand in the server's certificate.
	All pki.Names
	// Own are those of All that are this coordinator's among other hosts.
	Own pki.Names

	public string // goes into URLs
}

// NamesOf adds this host's name, localhost and the loopback addresses to the
// configured names. A host name that cannot stand in a certificate is left out.
func NamesOf(configured []string) (Names, error) {
	own := append([]string(nil), configured...)
	if host, err := os.Hostname(); err == nil {
		if _, err := pki.ParseNames([]string{host}); err == nil && host != "localhost" {
			own = append(own, host)
		}
	}
	n := Names{public: local[0]}
	for i := len(own) - 1; i >= 0; i-- {
		if !strings.HasPrefix(own[i], "*") {
			n.public = own[i]
		}
	}
	var err error
	if n.All, err = pki.ParseNames(append(local, own...)); err != nil {
		return Names{}, fmt.Errorf("names of the server: %w", err)
	}
	n.Own = without(n.All, pki.MustParseNames(local...))
	return n, nil
}

func without(all, some pki.Names) pki.Names {
	return some.Missing(all)
}

// Host is the first of its names, by which other hosts know this one.
func (n Names) Host() string { return n.public }

// URL is where the server that listens on addr is reached by the first of its
// names.
func (n Names) URL(addr net.Addr) string {
	port := 443
	if tcp, ok := addr.(*net.TCPAddr); ok {
		port = tcp.Port
	}
	return "https://" + net.JoinHostPort(n.public, strconv.Itoa(port))
}
