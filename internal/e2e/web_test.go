//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/testnginx"
)

// startWeb starts an nginx that serves the names, at first with placeholders.
func startWeb(t testing.TB, names ...string) *testnginx.Server {
	t.Helper()
	var sites []testnginx.Site
	for _, name := range names {
		sites = append(sites, testnginx.Site{Name: name})
	}
	server, err := testnginx.Start(t.TempDir(), testnginx.Options{Sites: sites})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, server.Stop()) })
	return server
}

// deployTo is the section of a deployment to a site of nginx.
func deployTo(server *testnginx.Server, site int) section {
	s := server.Site(site)
	return section{
		"id":     "web",
		"files":  section{"fullchain": s.Certificate, "key": s.Key},
		"check":  server.CheckArgv(),
		"reload": server.ReloadArgv(),
		"verify": section{"address": server.Address()},
	}
}

// servedLeaf is what nginx serves for a name, in a whole handshake: nginx has
// proved that it holds the key of this certificate.
func servedLeaf(ctx context.Context, server *testnginx.Server, name string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{
		ServerName:         name,
		InsecureSkipVerify: true, // the placeholder is nobody's; what counts is checked by the caller
		MinVersion:         tls.VersionTLS12,
	}}
	conn, err := dialer.DialContext(ctx, "tcp", server.Address())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// prober connects to nginx without a pause and keeps what must never be seen.
type prober struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	looks    int
	again    int // looks that a reload cut off and that had to be repeated
	problems []error
	seen     map[string]map[string]bool // fingerprints by name
}

// startProber looks at each name in turn until stop.
func startProber(server *testnginx.Server, names ...string) *prober {
	ctx, cancel := context.WithCancel(context.Background())
	p := &prober{cancel: cancel, seen: make(map[string]map[string]bool)}
	p.done.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			p.look(ctx, server, names[i%len(names)])
			pause(ctx, 5*time.Millisecond)
		}
	})
	return p
}

func (p *prober) look(ctx context.Context, server *testnginx.Server, name string) {
	leaf, err := servedLeaf(ctx, server, name)
	again := err != nil
	if again {
		// A worker that ends with a reload may drop what it has just accepted;
		// the next one does not.
		leaf, err = servedLeaf(ctx, server, name)
	}
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks++
	if again {
		p.again++
	}
	now := time.Now()
	switch {
	case err != nil:
		p.problems = append(p.problems, fmt.Errorf("%s at %s: %w", name, now.Format(time.TimeOnly), err))
		return
	case leaf.VerifyHostname(name) != nil:
		p.problems = append(p.problems, fmt.Errorf("%s was served a certificate for %v", name, leaf.DNSNames))
	case now.After(leaf.NotAfter):
		p.problems = append(p.problems, fmt.Errorf("%s was served a certificate at %s that expired at %s", name, now, leaf.NotAfter))
	}
	if p.seen[name] == nil {
		p.seen[name] = make(map[string]bool)
	}
	p.seen[name][string(leaf.Raw)] = true
}

// stop ends the prober and returns how often it looked, and what it must not
// have seen.
func (p *prober) stop() (looks, again int, err error) {
	p.cancel()
	p.done.Wait()
	return p.looks, p.again, errors.Join(p.problems...)
}
