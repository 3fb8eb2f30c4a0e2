package file

import (
	"crypto/tls"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/pki"
)

// Without patience the first look decides, whatever it takes.
func TestNoPatience(t *testing.T) {
	served, other := newPair(t), newPair(t)
	raw := make([][]byte, 0, len(served.chain))
	for _, c := range served.chain {
		raw = append(raw, c.Raw)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: raw, PrivateKey: served.key}}})
	require.NoError(t, err)
	ended := make(chan struct{})
	looks := 0
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			looks++
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	target := newTarget(t, Config{Paths: Paths{Combined: filepath.Join(t.TempDir(), "combined.pem")}, Probe: &Probe{Address: listener.Addr().String()}})
	assert.NoError(t, target.awaitServed(t.Context(), pki.Fingerprint(served.chain[0])))
	err = target.awaitServed(t.Context(), pki.Fingerprint(other.chain[0]))
	assert.ErrorContains(t, err, "after 0s: ")
	assert.ErrorContains(t, err, "serves another certificate")
	require.NoError(t, listener.Close())
	<-ended
	assert.Equal(t, settledAfter+1, looks)
}
