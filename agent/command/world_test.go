package command

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is a CA that issues once for each order, and revokes.
type authority struct {
	t    testing.TB
	root *x509.Certificate
	key  crypto.Signer
	// point is called where a crash may come.
	point func(label string)

	mu       sync.Mutex
	revoking func(serial string) error // when set, decides about each revocation
	issued   map[string][]byte         // by order id
	revoked  map[string]int            // reason by serial
	asked    int                       // for revocations
	refuses  bool                      // to issue
}

func newAuthority(t testing.TB) *authority {
	key, err := pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(20, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	root, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{t: t, root: root, key: key, point: func(string) {}, issued: map[string][]byte{}, revoked: map[string]int{}}
}

func (a *authority) clone() *authority {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &authority{t: a.t, root: a.root, key: a.key, point: func(string) {}, issued: maps.Clone(a.issued), revoked: maps.Clone(a.revoked)}
}

func (a *authority) decide(revoking func(serial string) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoking = revoking
}

func (a *authority) refuse(refuses bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuses = refuses
}

func (*authority) Kind() string { return "test" }

func (a *authority) Issue(_ context.Context, order *issuer.Order) (*issuer.Issued, error) {
	if err := order.Save([]byte(`{}`)); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuses {
		return nil, &issuer.Error{Class: issuer.ClassRefused, Err: errors.New("not today")}
	}
	der := a.issued[order.ID]
	if der == nil {
		var err error
		der, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(int64(len(a.issued) + 100)), DNSNames: order.Names.DNS,
			NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		}, a.root, order.Key.Public(), a.key)
		if err != nil {
			return nil, err
		}
		a.issued[order.ID] = der
	}
	leaf, err := x509.ParseCertificate(der)
	return &issuer.Issued{Chain: []*x509.Certificate{leaf, a.root}}, err
}

func (a *authority) Revoke(_ context.Context, leaf *x509.Certificate, _ crypto.Signer, reason int) error {
	a.point("authority: before the revocation")
	serial := pki.SerialHex(leaf)
	a.mu.Lock()
	a.asked++
	decide := a.revoking
	a.mu.Unlock()
	if decide != nil {
		if err := decide(serial); err != nil {
			return err
		}
	}
	a.mu.Lock()
	a.revoked[serial] = reason
	a.mu.Unlock()
	a.point("authority: the answer is lost")
	return nil
}

// world is one host with a real store, real keys and a real engine. It lives in
// a bubble of synctest.
type world struct {
	t      testing.TB
	dir    string
	ca     *authority
	record func(label string, w *world) // of crash points
	met    map[durable.Step]int         // how often each was one

	store  *store.Store
	engine *renewal.Engine
	runner *Runner
	stop   func()
	// stopRunner stops the runner alone.
	stopRunner func()
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, dir: t.TempDir(), ca: newAuthority(t), met: map[durable.Step]int{}}
	t.Cleanup(w.close)
	return w
}

func (w *world) open() {
	dir, err := keys.OpenDir(filepath.Join(w.dir, "keys"))
	require.NoError(w.t, err)
	w.store, err = store.Open(filepath.Join(w.dir, "state", "state.db"), store.Options{Hook: w.hook})
	require.NoError(w.t, err)
	w.ca.point = w.point
	w.engine, err = renewal.New(renewal.Config{
		Store: w.store, Keys: dir, ScratchDir: filepath.Join(w.dir, "scratch"), Log: slog.New(slog.DiscardHandler),
		Pace: renewal.Pace{TickInterval: time.Minute}, // it is woken by what it is told
		Managed: []renewal.Managed{{
			Name: "www", Names: pki.MustParseNames("www.example.com"), KeyAlgorithm: pki.ECDSAP256,
			Issuers: []renewal.NamedIssuer{{Name: "ca", Issuer: w.ca}},
		}},
	})
	require.NoError(w.t, err)
	w.runner, err = New(Config{
		Store: w.store, Engine: w.engine, Key: dir.Load, Log: slog.New(slog.DiscardHandler),
		Revoker: func(name string) issuer.Revoker {
			if name != "ca" {
				return nil
			}
			return w.ca
		},
	})
	require.NoError(w.t, err)
	w.engine.OnChange(w.runner.Wake)
	stopEngine := w.start(w.engine.Run)
	w.stopRunner = w.start(w.runner.Run)
	w.stop = func() {
		w.stopRunner()
		stopEngine()
	}
}

// start runs something and returns what stops it, which may be called twice.
func (w *world) start(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		require.NoError(w.t, <-ended)
	})
}

func (w *world) close() {
	if w.store == nil {
		return
	}
	w.stop()
	require.NoError(w.t, w.store.Close())
	w.store = nil
}

func (w *world) reopen() { w.close(); w.open() }

func (w *world) pass(d time.Duration) {
	require.NoError(w.t, backoff.Wait(context.Background(), d))
	synctest.Wait()
}

// command is what a sync does with an answer that asks for these.
func (w *world) command(list ...wire.Command) {
	_, err := w.store.FollowCommands(list, nil)
	require.NoError(w.t, err)
	w.runner.Wake()
}

func (w *world) commandNow() store.Command {
	list, err := w.store.Commands()
	require.NoError(w.t, err)
	require.Len(w.t, list, 1)
	return list[0]
}

func (w *world) certificate() *store.Certificate {
	rec, found, err := w.store.Certificate("www")
	require.NoError(w.t, err)
	require.True(w.t, found)
	return rec
}

// serial waits for the certificate in service to settle and returns its serial.
func (w *world) serial() string {
	w.pass(time.Minute)
	rec := w.certificate()
	require.NotNil(w.t, rec.Current)
	return rec.Current.Serial
}

var errSnapshot = errors.New("nothing is stored")

// point is a crash point outside of a transaction. It is one within a
// transaction that is given up, so that nobody writes meanwhile.
func (w *world) point(label string) {
	if w.record == nil {
		return
	}
	err := w.store.Update("crash", func(*store.CertificateTx) error {
		w.record(label, w.copy())
		return errSnapshot
	})
	require.ErrorIs(w.t, err, errSnapshot)
}

// hook is called with the store's lock held.
func (w *world) hook(step durable.Step, _ string, done bool) error {
	if w.record != nil && done && strings.HasPrefix(string(step), "store: commit ") {
		w.met[step]++
		w.record("store: after a commit", w.copy())
	}
	return nil
}

func (w *world) copy() *world {
	dir := w.t.TempDir()
	for _, sub := range []string{"keys", "state"} {
		require.NoError(w.t, os.Mkdir(filepath.Join(dir, sub), 0o700))
		files, err := os.ReadDir(filepath.Join(w.dir, sub))
		require.NoError(w.t, err)
		for _, f := range files {
			text, err := os.ReadFile(filepath.Join(w.dir, sub, f.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue // a temporary name
			}
			require.NoError(w.t, err)
			require.NoError(w.t, os.WriteFile(filepath.Join(dir, sub, f.Name()), text, 0o600))
		}
	}
	return &world{t: w.t, dir: dir, ca: w.ca.clone()}
}
