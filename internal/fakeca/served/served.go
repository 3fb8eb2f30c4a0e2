// Package served serves a fake authority over TLS, as the real one is reached, and
// says what an issuer's settings need to use it.
package served

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/digicert"
	"github.com/certctl/certctl/internal/fakeca/entrust"
	"github.com/certctl/certctl/internal/fakeca/globalsign"
	"github.com/certctl/certctl/internal/fakeca/sectigo"
	"github.com/certctl/certctl/internal/fakeca/vault"
	"github.com/certctl/certctl/internal/testca"
)

// headerTime bounds how long a client may take with a request's header.
const headerTime = 10 * time.Second

// fakes make a fake of each kind of issuer.
var fakes = map[string]func(fakeca.Config) fakeca.Server{
	"digicert":   func(c fakeca.Config) fakeca.Server { return digicert.New(c) },
	"entrust":    func(c fakeca.Config) fakeca.Server { return entrust.New(c) },
	"globalsign": func(c fakeca.Config) fakeca.Server { return globalsign.New(c) },
	"sectigo":    func(c fakeca.Config) fakeca.Server { return sectigo.New(c) },
	"vault":      func(c fakeca.Config) fakeca.Server { return vault.New(c) },
}

// AtOnce reports whether a kind answers an order with its certificate: nothing waits
// there, and nobody approves anything.
func AtOnce(kind string) bool { return kind == "vault" }

// Kinds are the kinds of issuers that are played, sorted.
func Kinds() []string { return slices.Sorted(maps.Keys(fakes)) }

// secrets are the settings that go into files of their own.
var secrets = []string{"api_key", "api_secret", "client_secret", "password", "token"}

// Server is a fake that listens.
type Server struct {
	Fake fakeca.Server
	Kind string
	// URL is where the API is.
	URL string
	// Root is the file of the certificate that vouches for all that the fake issues.
	Root string

	section  map[string]string // as it stands in YAML
	listener net.Listener
	tls      *tls.Config
}

// certified is a fake that knows its users by a TLS certificate.
type certified interface {
	Client() tls.Certificate
}

// Listen makes a fake with a port, and the files that its users need in dir.
func Listen(ctx context.Context, kind, dir, address string, c fakeca.Config) (*Server, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s, err := New(kind, dir, listener, c)
	if err != nil {
		_ = listener.Close()
	}
	return s, err
}

// New makes a fake behind a listener, and the files that its users need in dir. Its
// URL has the host localhost if the listener's address is none of a network.
func New(kind, dir string, listener net.Listener, c fakeca.Config) (*Server, error) {
	made := fakes[kind]
	if made == nil {
		return nil, fmt.Errorf("nobody plays %q; there are %s", kind, strings.Join(Kinds(), ", "))
	}
	fake := made(c)
	identity, err := testca.NewServerTLS(dir)
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(identity.CertFile, identity.KeyFile)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Fake: fake, Kind: kind, Root: filepath.Join(dir, "issued-root.pem"), section: maps.Clone(fake.Account()), listener: listener,
		// A client's certificate is asked for, and looked at by the fake.
		tls: &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12},
	}
	if err := os.WriteFile(s.Root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: fake.Core().Root().Raw}), 0o600); err != nil {
		return nil, err
	}
	s.section["ca_file"] = identity.RootFile
	if err := s.writeSecrets(dir); err != nil {
		return nil, err
	}
	host := listener.Addr().String()
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = "localhost"
	}
	s.URL = "https://" + host + s.section["path"]
	delete(s.section, "path")
	s.section["url"] = s.URL
	return s, nil
}

func (s *Server) writeSecrets(dir string) error {
	for _, name := range secrets {
		if text, ok := s.section[name]; ok {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
				return err
			}
			delete(s.section, name)
			s.section[name+"_file"] = file
		}
	}
	c, ok := s.Fake.(certified)
	if _, password := s.section["password_file"]; !ok || password { // there is another way of logging in
		return nil
	}
	certFile, keyFile := filepath.Join(dir, "client.pem"), filepath.Join(dir, "client-key.pem")
	s.section["client_certificate_file"], s.section["client_key_file"] = certFile, keyFile
	return WriteClient(certFile, keyFile, c.Client())
}

// WriteClient writes a client certificate and its key to files.
func WriteClient(certFile, keyFile string, client tls.Certificate) error {
	key, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		return err
	}
	var certs []byte
	for _, der := range client.Certificate {
		certs = append(certs, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := os.WriteFile(certFile, certs, 0o600); err != nil {
		return err
	}
	return os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)
}

// Setting is one of Settings, without the quotes of YAML; "" if there is none.
func (s *Server) Setting(name string) string { return s.section[name] }

// Secrets are the files of the settings that are secrets, by setting.
func (s *Server) Secrets() map[string]string {
	files := map[string]string{}
	for _, name := range append([]string{"client_key"}, secrets...) {
		if file := s.section[name+"_file"]; file != "" {
			files[name] = file
		}
	}
	return files
}

// Set changes a setting, given as it stands in YAML; "" removes it.
func (s *Server) Set(name, value string) {
	if s.section[name] = value; value == "" {
		delete(s.section, name)
	}
}

// Settings are the lines of the issuer's section of the kind, as they stand in the
// coordinator's file, each after an indent. One line says the kind.
func (s *Server) Settings(indent string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s%s:\n", indent, s.Kind)
	for _, name := range slices.Sorted(maps.Keys(s.section)) {
		fmt.Fprintf(&text, "%s  %s: %s\n", indent, name, s.section[name])
	}
	return text.String()
}

// Serve answers until ctx is done. What is under way then, hanging answers among it,
// is cut off.
func (s *Server) Serve(ctx context.Context) error {
	// Who hangs up early is what it is there for.
	api := &http.Server{Handler: s.Fake, ReadHeaderTimeout: headerTime, TLSConfig: s.tls, ErrorLog: log.New(io.Discard, "", 0)}
	failed := make(chan error, 1)
	go func() { failed <- api.ServeTLS(s.listener, "", "") }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	_ = api.Close()
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close releases the port of a server that does not serve.
func (s *Server) Close() { _ = s.listener.Close() }
