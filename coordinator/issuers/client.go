package issuers

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/settings"
)

// clientCertificate is the TLS certificate that an authority knows an account by. It
// is read anew each time, and parsed when it has changed.
type clientCertificate struct {
	file string
	key  settings.Secret
	now  func() time.Time

	mu     sync.Mutex
	text   []byte // of the file, that pair was made of
	secret string // of the key, likewise
	pair   *tls.Certificate
}

// load reads the certificate and its key. No error has anything of the key.
func (c *clientCertificate) load() (*tls.Certificate, error) {
	text, err := readFile(c.file)
	if err != nil {
		return nil, err
	}
	secret, err := c.key.Read()
	if err != nil {
		return nil, fmt.Errorf("its key: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pair == nil || secret != c.secret || !bytes.Equal(text, c.text) {
		pair, err := tls.X509KeyPair(text, []byte(secret))
		if err != nil {
			return nil, fmt.Errorf("%s and its key: %w", c.file, err)
		}
		c.text, c.secret, c.pair = text, secret, &pair
	}
	return c.pair, nil
}

// present is the certificate as it is shown to the authority. One that has expired is
// not: the authority would end the connection, and not say why.
func (c *clientCertificate) present() (*tls.Certificate, error) {
	pair, err := c.load()
	if err == nil && pair.Leaf != nil && !c.now().Before(pair.Leaf.NotAfter) {
		err = fmt.Errorf("%s expired at %s", c.file, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if err != nil {
		return nil, &connector.Error{
			Class: connector.ClassCredentials, NotPlaced: true, Err: fmt.Errorf("the client certificate: %w", err),
			Mend: "have the authority make a new client certificate, or mend the issuer's client certificate and key",
		}
	}
	return pair, nil
}
