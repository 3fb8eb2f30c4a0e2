package file

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/shared/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const site = "site.example"

// pair is a key and its chain: a leaf and one issuer.
type pair struct {
	key   crypto.Signer
	chain []*x509.Certificate
}

func newPair(t testing.TB) pair {
	t.Helper()
	caKey, key := newKey(t), newKey(t)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{site},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	issuer := sign(t, ca, ca, caKey.Public(), caKey)
	return pair{key: key, chain: []*x509.Certificate{sign(t, leaf, issuer, key.Public(), caKey), issuer}}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

// contents is what each kind of file must hold for the pair.
func (p pair) contents(t testing.TB) map[kind][]byte {
	t.Helper()
	key, err := pki.MarshalKeyPEM(p.key)
	require.NoError(t, err)
	full := pki.EncodeChainPEM(p.chain)
	return map[kind][]byte{
		kindKey: key, kindFullChain: full, kindCombined: slices.Concat(key, full),
		kindCertificate: pki.EncodeChainPEM(p.chain[:1]), kindChain: pki.EncodeChainPEM(p.chain[1:]),
	}
}

// host is a machine that survives the agent's crashes: its disk and what was
// last saved in the agent's store.
type host struct {
	dir     string // where the program reads
	scratch string
	state   json.RawMessage
	paths   Paths
}

func newHost(t testing.TB) *host {
	t.Helper()
	base := memoryDir(t)
	h := &host{dir: filepath.Join(base, "tls"), scratch: filepath.Join(base, "scratch")}
	require.NoError(t, os.Mkdir(h.scratch, 0o700))
	h.paths = Paths{
		Certificate: filepath.Join(h.dir, "cert.pem"), Chain: filepath.Join(h.dir, "chain.pem"),
		FullChain: filepath.Join(h.dir, "fullchain.pem"), Key: filepath.Join(h.dir, "privkey.pem"),
		Combined: filepath.Join(h.dir, "combined.pem"),
	}
	return h
}

// memoryDir is a directory in memory where the system has one, since the
// enumerations sync some hundred thousand times.
func memoryDir(t testing.TB) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "certctl-test-"); err == nil {
		t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
		return dir
	}
	return t.TempDir()
}

func (h *host) config(l Layout) Config {
	return Config{Paths: h.paths, Layout: l, CreateDirectories: true}
}

func (h *host) task(p pair, generation uint64) *deploy.Task {
	return &deploy.Task{
		Certificate: "web", Generation: generation, Key: p.key, Chain: p.chain, ScratchDir: h.scratch, State: h.state,
		Save: func(state json.RawMessage) error { h.state = slices.Clone(state); return nil },
	}
}

// layouts are those that this system has.
func layouts() []Layout {
	if runtime.GOOS == "windows" {
		return []Layout{LayoutFiles}
	}
	return []Layout{LayoutFiles, LayoutDirectory}
}

func newTarget(t testing.TB, config Config) *Target {
	t.Helper()
	target, err := New(config)
	require.NoError(t, err)
	return target
}

// mustDeploy deploys without faults.
func (h *host) mustDeploy(t testing.TB, config Config, p pair, generation uint64) *deploy.Report {
	t.Helper()
	report, err := newTarget(t, config).Deploy(context.Background(), h.task(p, generation))
	require.NoError(t, err)
	return report
}

// found says what is on the disk: which of the pairs whole, "absent", or "mixed".
func (h *host) found(t testing.TB, pairs map[string]pair) string {
	t.Helper()
	specs := h.paths.list()
	for name, p := range pairs {
		want, matching := p.contents(t), 0
		for _, spec := range specs {
			if data, err := os.ReadFile(spec.path); err == nil && bytes.Equal(data, want[spec.kind]) {
				matching++
			}
		}
		if matching == len(specs) {
			return name
		}
	}
	for _, spec := range specs {
		if _, err := os.Stat(spec.path); err == nil {
			return "mixed"
		}
	}
	return "absent"
}

// requireTidy checks that no transaction is open and nothing lies about.
func (h *host) requireTidy(t testing.TB) {
	t.Helper()
	assert.Empty(t, h.state, "state of a closed transaction")
	scratch, err := os.ReadDir(h.scratch)
	require.NoError(t, err)
	assert.Empty(t, scratch, "scratch directory")
	known := map[string]bool{}
	for _, spec := range h.paths.list() {
		known[filepath.Base(spec.path)] = true
	}
	if _, err := os.Lstat(h.dir); err == nil {
		entries, err := os.ReadDir(h.dir)
		require.NoError(t, err)
		for _, entry := range entries {
			assert.True(t, known[entry.Name()], "leftover %s", entry.Name())
		}
	}
	// Beside the link there is the directory that it leads to, and no other.
	link, _ := os.Readlink(h.dir)
	siblings, err := os.ReadDir(filepath.Dir(h.dir))
	require.NoError(t, err)
	for _, entry := range siblings {
		assert.Contains(t, []string{"tls", "scratch", filepath.Base(link)}, entry.Name())
	}
}

func requireFailure(t testing.TB, err error, stage deploy.Stage) *deploy.Error {
	t.Helper()
	var failed *deploy.Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, stage, failed.Stage, "%v", err)
	return failed
}
