package testnginx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// head is the part of the configuration that does not depend on the sites.
// Everything that nginx would otherwise write to places of the distribution
// stays in its own directory (relative paths are relative to -p).
const head = `pid nginx.pid;
worker_processes 1;
events { worker_connections 256; }
http {
	access_log off;
	server_tokens off;
	client_body_temp_path temp;
	proxy_temp_path temp;
	fastcgi_temp_path temp;
	uwsgi_temp_path temp;
	scgi_temp_path temp;
`

func (s *Server) writeConfig() error {
	var b strings.Builder
	b.WriteString(head)
	for _, site := range s.sites {
		fmt.Fprintf(&b, "\tserver {\n\t\tlisten %s ssl;\n\t\tserver_name %s;\n", s.address, site.Name)
		fmt.Fprintf(&b, "\t\tssl_certificate \"%s\";\n\t\tssl_certificate_key \"%s\";\n", site.Certificate, site.Key)
		fmt.Fprintf(&b, "\t\tlocation / { default_type text/plain; return 200 \"%s\\n\"; }\n\t}\n", site.Name)
	}
	b.WriteString("}\n")
	if err := os.WriteFile(s.ConfigPath(), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("writing nginx's configuration: %w", err)
	}
	return nil
}

// prepareSites checks the sites, fills in their files and writes placeholders.
func prepareSites(dir string, given []Site) ([]Site, error) {
	if len(given) == 0 {
		return nil, errors.New("sites: nginx needs at least one")
	}
	sites := make([]Site, len(given))
	for i, site := range given {
		if site.Certificate == "" {
			site.Certificate = filepath.Join(dir, "tls", site.Name, "fullchain.pem")
		}
		if site.Key == "" {
			site.Key = filepath.Join(dir, "tls", site.Name, "privkey.pem")
		}
		// These have a meaning to nginx even between quotes.
		for _, s := range []string{site.Name, site.Certificate, site.Key} {
			if s == "" || strings.ContainsAny(s, "\"\\$;{}\r\n") {
				return nil, fmt.Errorf("site %d: %q cannot stand in nginx's configuration", i, s)
			}
		}
		if err := ensurePair(site); err != nil {
			return nil, fmt.Errorf("site %q: %w", site.Name, err)
		}
		sites[i] = site
	}
	return sites, nil
}

// ensurePair writes a placeholder unless one of the files is there already.
func ensurePair(site Site) error {
	for _, path := range []string{site.Certificate, site.Key} {
		if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	certificate, key, err := selfSigned(site.Name)
	if err != nil {
		return err
	}
	for path, data := range map[string][]byte{site.Certificate: certificate, site.Key: key} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("writing a placeholder: %w", err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return fmt.Errorf("writing a placeholder: %w", err)
		}
	}
	return nil
}

func selfSigned(name string) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a placeholder key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "placeholder of " + name},
		DNSNames:     []string{name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, fmt.Errorf("making a placeholder certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding a placeholder key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}
