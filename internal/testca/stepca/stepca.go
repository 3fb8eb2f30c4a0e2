// Package stepca runs step-ca with an ACME provisioner as a child process on
// loopback ports, for tests.
package stepca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/certctl/certctl/internal/testca"
)

const (
	readyLimit = time.Minute
	portTries  = 5
)

// Options are what Start needs.
type Options struct {
	// Resolver is the DNS server that names are resolved through, "host:port".
	// Required.
	Resolver string
	// Log receives step-ca's output; nil discards it.
	Log io.Writer
}

// Server is a running step-ca.
type Server struct {
	// DirectoryURL is the ACME directory.
	DirectoryURL string
	// Root issued both the intermediate and step-ca's own TLS certificate.
	Root     *x509.Certificate
	RootFile string
	// HTTPPort and TLSPort are where challenges are validated.
	HTTPPort, TLSPort int

	dir     string
	process *testca.Process
}

// TB is the part of testing.TB that Run needs.
type TB interface {
	Helper()
	Cleanup(func())
	Context() context.Context
	Fatalf(format string, args ...any)
}

// Run starts step-ca for a test and stops it at the test's end.
func Run(t TB, options Options) *Server {
	t.Helper()
	server, err := Start(t.Context(), options)
	if err != nil {
		t.Fatalf("start step-ca: %v", err)
	}
	t.Cleanup(server.Close)
	return server
}

// Start installs step-ca if necessary, which takes a minute the first time,
// starts it and returns when it answers. ctx bounds the start only.
func Start(ctx context.Context, options Options) (*Server, error) {
	bin, err := testca.Install(ctx, "stepca")
	if err != nil {
		return nil, fmt.Errorf("install step-ca: %w", err)
	}
	for try := 1; ; try++ {
		s := &Server{}
		err := s.start(ctx, bin, options)
		if err == nil {
			return s, nil
		}
		s.Close()
		if try == portTries || !errors.Is(err, testca.ErrExited) {
			return nil, err
		}
	}
}

func (s *Server) start(ctx context.Context, bin string, options Options) error {
	var err error
	if s.dir, err = os.MkdirTemp("", "stepca-"); err != nil {
		return err
	}
	ports, err := testca.Ports(3)
	if err != nil {
		return err
	}
	s.HTTPPort, s.TLSPort = ports[1], ports[2]
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	if err := s.writeAuthority(); err != nil {
		return err
	}
	config := filepath.Join(s.dir, "ca.json")
	if err := s.writeConfig(config, address); err != nil {
		return err
	}
	s.process, err = testca.StartProcess(testca.Command{
		Path: filepath.Join(bin, "step-ca"),
		Args: []string{
			config, "--insecure",
			"--acme-http-port=" + strconv.Itoa(s.HTTPPort),
			"--acme-tls-port=" + strconv.Itoa(s.TLSPort),
			"--resolver=" + options.Resolver,
		},
		Env: []string{"STEPPATH=" + s.dir},
		Log: options.Log,
	})
	if err != nil {
		return err
	}
	s.DirectoryURL = "https://" + address + "/acme/acme/directory"
	roots := x509.NewCertPool()
	roots.AddCert(s.Root)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}}
	return s.process.AwaitReady(ctx, readyLimit, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.DirectoryURL, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s: %s", s.DirectoryURL, resp.Status)
		}
		return nil
	})
}

// Close ends step-ca and removes its files.
func (s *Server) Close() {
	if s.process != nil {
		s.process.Kill()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

func (s *Server) writeConfig(path, address string) error {
	text, err := json.MarshalIndent(map[string]any{
		"root":     s.RootFile,
		"crt":      filepath.Join(s.dir, "intermediate.pem"),
		"key":      filepath.Join(s.dir, "intermediate-key.pem"),
		"address":  address,
		"dnsNames": []string{"127.0.0.1", "localhost"},
		"logger":   map[string]any{"format": "text"},
		"db":       map[string]any{"type": "bbolt", "dataSource": filepath.Join(s.dir, "db")},
		"authority": map[string]any{
			"provisioners": []map[string]any{{"type": "ACME", "name": "acme"}},
		},
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// writeAuthority makes the root and the intermediate that step-ca issues with.
func (s *Server) writeAuthority() error {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	rootTemplate := authority(1, "Root of a test step-ca", 1)
	rootDER, err := x509.CreateCertificate(rand.Reader, rootTemplate, rootTemplate, rootKey.Public(), rootKey)
	if err != nil {
		return err
	}
	if s.Root, err = x509.ParseCertificate(rootDER); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, authority(2, "Intermediate of a test step-ca", 0), s.Root, key.Public(), rootKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	s.RootFile = filepath.Join(s.dir, "root.pem")
	return errors.Join(
		writePEM(s.RootFile, "CERTIFICATE", rootDER),
		writePEM(filepath.Join(s.dir, "intermediate.pem"), "CERTIFICATE", der),
		writePEM(filepath.Join(s.dir, "intermediate-key.pem"), "PRIVATE KEY", keyDER),
	)
}

func authority(serial int64, name string, pathLen int) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(serial),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(0, 0, 7),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            pathLen,
		MaxPathLenZero:        pathLen == 0,
	}
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
