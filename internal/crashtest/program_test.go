//go:build unix

package crashtest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy/file"
	"github.com/certctl/certctl/shared/pki"
)

// web is one listener for all programs of all worlds, told apart by the name
// that is asked for. It runs outside of the bubbles of virtual time.
type web struct {
	address string

	mu       sync.Mutex
	programs map[string]*program
}

func startWeb(t *testing.T) *web {
	t.Helper()
	w := &web{programs: map[string]*program{}}
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w.address = l.Addr().String()
	settings := &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}, SessionTicketsDisabled: true, GetCertificate: w.choose}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				_ = tls.Server(conn, settings).HandshakeContext(t.Context())
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		conns.Wait()
	})
	return w
}

func (w *web) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	w.mu.Lock()
	p := w.programs[hello.ServerName]
	w.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("nobody serves %q", hello.ServerName)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded == nil {
		return nil, errors.New("it does not run")
	}
	return p.loaded, nil
}

func (w *web) host(name string, p *program) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.programs[name] = p
}

func (w *web) drop(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.programs, name)
}

// fault is what is wrong with a program.
type fault string

const (
	checkFails  fault = "check fails"
	reloadFails fault = "reload fails"
	servesOld   fault = "reload succeeds, and the old certificate is served"
	failsWithIt fault = "it serves the new certificate, and does not work with it"
)

// program is a server that reads its pair from disk when it is told to, and goes
// on with what it has in memory otherwise. It lives through crashes of the agent.
type program struct {
	paths  file.Paths
	layout file.Layout

	mu     sync.Mutex
	loaded *tls.Certificate
	// fault is what is wrong with it until mended, in virtual time.
	fault  fault
	mended time.Time

	last struct { // what was read last
		sync.Mutex
		known     bool
		cert, key []byte
		pair      tls.Certificate
		err       error
	}
}

// at is the same program on another disk.
func (p *program) at(from, to string) *program {
	p.mu.Lock()
	defer p.mu.Unlock()
	move := func(path string) string {
		if path == "" {
			return ""
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			panic(err)
		}
		return filepath.Join(to, rel)
	}
	return &program{
		paths:  file.Paths{FullChain: move(p.paths.FullChain), Key: move(p.paths.Key), Combined: move(p.paths.Combined)},
		layout: p.layout, loaded: p.loaded, fault: p.fault, mended: p.mended,
	}
}

// read is what a program does when it starts: nil without an error is nothing
// there at all.
func (p *program) read() (*tls.Certificate, error) {
	cert, key := p.paths.FullChain, p.paths.Key
	if p.paths.Combined != "" {
		cert, key = p.paths.Combined, p.paths.Combined
	}
	certPEM, certErr := os.ReadFile(cert)
	keyPEM, keyErr := os.ReadFile(key)
	if errors.Is(certErr, os.ErrNotExist) && errors.Is(keyErr, os.ErrNotExist) {
		return nil, nil
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, err
	}
	// It is asked at every step, and most change nothing here.
	p.last.Lock()
	defer p.last.Unlock()
	if !p.last.known || !bytes.Equal(p.last.cert, certPEM) || !bytes.Equal(p.last.key, keyPEM) {
		p.last.known, p.last.cert, p.last.key = true, certPEM, keyPEM
		p.last.pair, p.last.err = tls.X509KeyPair(certPEM, keyPEM) // which compares the keys
	}
	if p.last.err != nil {
		return nil, p.last.err
	}
	pair := p.last.pair
	return &pair, nil
}

func (p *program) has(f fault) bool { return p.fault == f && time.Now().Before(p.mended) }

// check is the program's own look at its files.
func (p *program) check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.has(checkFails) {
		return errors.New("the program does not like it")
	}
	_, err := p.read()
	return err
}

// reload makes it read its files. What it cannot use it does not use.
func (p *program) reload() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.has(reloadFails):
		return errors.New("the program does not reload")
	case p.has(servesOld):
		return nil
	}
	pair, err := p.read()
	if err != nil {
		return err
	}
	p.loaded = pair // nil when everything is gone: it serves nothing
	return nil
}

// tried is the last look at it, by somebody who uses it.
func (p *program) tried() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.has(failsWithIt) {
		return errors.New("the program does not work")
	}
	return nil
}

// serving is the fingerprint of what it has in memory; "" if nothing.
func (p *program) serving() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fingerprintOf(p.loaded)
}

func fingerprintOf(pair *tls.Certificate) string {
	if pair == nil {
		return ""
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return "unreadable"
	}
	return pki.Fingerprint(leaf)
}
