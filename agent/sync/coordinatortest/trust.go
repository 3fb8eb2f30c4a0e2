package coordinatortest

import (
	"bytes"
	"crypto/x509"
	"net"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/trust"
	"github.com/certctl/certctl/shared/wire"
)

// history is the model's chain of trust.
type history struct {
	chain [][]byte
	roots []*authority // that are trusted now
	// retired are roots of earlier times, to recognize old identities by.
	retired []*authority
}

// Rotate replaces the root: agents are told of both first, and then of the new
// one alone, which the server's certificate is from at once. Call it within no
// Change.
func (c *Coordinator) Rotate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, fresh := c.root, c.newRoot()
	c.generation(old, fresh)
	c.generation(fresh)
	c.trust.retired = append(c.trust.retired, old)
	c.root = fresh
	c.certify()
}

// Publish makes agents trust a new root besides the old one, which goes on.
func (c *Coordinator) Publish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation(c.root, c.newRoot())
}

// Chain is the signed chain of trust, to be changed within Change.
func (c *Coordinator) Chain() *[][]byte { return &c.trust.chain }

func (c *Coordinator) generation(roots ...*authority) {
	var signers []trust.Signer
	for _, a := range append(append([]*authority(nil), c.trust.roots...), roots...) {
		signers = append(signers, trust.Signer{Root: a.cert, Key: a.key})
	}
	g := trust.Generation{Number: uint64(len(c.trust.chain)) + 1, CreatedAt: c.now()}
	for _, a := range roots {
		g.Roots = append(g.Roots, a.cert)
	}
	if n := len(c.trust.chain); n > 0 {
		before, err := trust.Parse(c.trust.chain[n-1])
		require.NoError(c.t, err)
		g.Previous = before.Digest()
	}
	signed, err := trust.Sign(g, signers...)
	require.NoError(c.t, err)
	c.trust.chain, c.trust.roots = append(c.trust.chain, signed), roots
}

// certify gives the server a certificate of the present root.
func (c *Coordinator) certify() {
	key, err := pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(c.t, err)
	leaf := c.sign(&x509.Certificate{
		NotAfter: time.Now().Add(20 * 365 * 24 * time.Hour), DNSNames: []string{Host}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public())
	require.NoError(c.t, c.source.Set([]*x509.Certificate{leaf, c.root.cert}, key))
}

// clientRoots are those that an identity may lead to, of whatever time.
func (c *Coordinator) clientRoots() *x509.CertPool {
	c.mu.Lock()
	defer c.mu.Unlock()
	pool := x509.NewCertPool()
	pool.AddCert(c.root.cert)
	for _, a := range c.trust.retired {
		pool.AddCert(a.cert)
	}
	return pool
}

// rootsPEM is what agents have to trust now.
func (c *Coordinator) rootsPEM() string {
	var roots []*x509.Certificate
	for _, a := range c.trust.roots {
		roots = append(roots, a.cert)
	}
	return string(pki.EncodeChainPEM(roots))
}

// tellTrust answers wire.TrustPath.
func (c *Coordinator) tellTrust(body []byte, shown bool) any {
	var request wire.TrustRequest
	p := wire.Decode(bytes.NewReader(body), wire.MaxTrustRequest, &request)
	if p == nil {
		p = request.Validate()
	}
	if p != nil {
		return p
	}
	if shown {
		c.t.Error("an identity was shown on a connection that is not verified")
	}
	return &wire.TrustResponse{Generations: c.missing(&request.Trust)}
}

func (c *Coordinator) missing(at *wire.TrustPosition) [][]byte {
	if at == nil {
		return nil
	}
	var digest trust.Digest
	copy(digest[:], at.Digest)
	missing, _, err := trust.After(c.trust.chain, at.Generation, digest)
	if err != nil {
		return c.trust.chain // a test has spoilt it
	}
	return missing
}
