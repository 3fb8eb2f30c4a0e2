package peer

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/pki"
)

// Config of an identity. Dir, NodeID, SealKey and Log are required.
type Config struct {
	// Dir is the data directory; the identity is in a folder of it.
	Dir    string
	NodeID string
	// SealKey opens the cluster's CA.
	SealKey ca.SealKey
	Log     *slog.Logger
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
	// CheckEvery is how often Run looks whether the certificate is to be renewed;
	// 0 is ten minutes.
	CheckEvery time.Duration
	// Hook is called around each durable step; nil is no hook.
	Hook durable.Hook
}

// defaultCheckEvery is that of the certificate, which is renewed days before its end.
const defaultCheckEvery = 10 * time.Minute

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.CheckEvery == 0 {
		c.CheckEvery = defaultCheckEvery
	}
	return c
}

func (c Config) validate() error {
	switch {
	case !filepath.IsAbs(c.Dir):
		return fmt.Errorf("identity of the node: Dir %q is not an absolute path", c.Dir)
	case c.SealKey == ca.SealKey{}:
		return errors.New("identity of the node: SealKey is missing")
	case c.Log == nil:
		return errors.New("identity of the node: Log is missing")
	case c.CheckEvery < 0:
		return fmt.Errorf("identity of the node: CheckEvery %v is negative", c.CheckEvery)
	}
	if err := clusterca.CheckNodeID(c.NodeID); err != nil {
		return fmt.Errorf("identity of the node: %w", err)
	}
	return nil
}

// Identity is who a node is towards the others: its key, its certificate and the
// roots that it trusts. Its methods may be called by any number of goroutines.
type Identity struct {
	config Config
	folder folder
	key    crypto.Signer

	mu          sync.Mutex // one change at a time
	current     atomic.Pointer[credentials]
	due         chan struct{} // wakes Run: the certificate is no good at this time
	subscribers []chan struct{}
}

// credentials are what a handshake uses. They never change.
type credentials struct {
	stored *fleet.ClusterCA
	roots  *clusterca.Roots
	leaf   *x509.Certificate
	cert   tls.Certificate
}

// Exists reports whether a data directory holds an identity.
func Exists(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, Directory, authorityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("identity of the node: %w", err)
	}
	return true, nil
}

// EnsureKey returns the public key of the node that is, or will be, in a data
// directory, and makes the key if there is none yet. A node that joins names
// itself by it before it has anything else; [Create] then uses it.
func EnsureKey(c Config) (crypto.PublicKey, error) {
	f := folderOf(c)
	if err := f.prepare(); err != nil {
		return nil, fmt.Errorf("identity of the node: %w", err)
	}
	key, _, err := f.ensureKey()
	if err != nil {
		return nil, fmt.Errorf("identity of the node: key: %w", err)
	}
	return key.Public(), nil
}

// Create makes the identity of a node of the cluster whose CA is given, and
// keeps a copy of that CA. What is there of an earlier attempt, or of another
// cluster, is replaced, but for the key.
func Create(c Config, stored *fleet.ClusterCA) (*Identity, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	i := &Identity{config: c, folder: folderOf(c), due: make(chan struct{}, 1)}
	if err := i.create(stored); err != nil {
		return nil, fmt.Errorf("identity of the node: %w", err)
	}
	return i, nil
}

// create writes the copy of the CA last: it is what says that there is an
// identity.
func (i *Identity) create(stored *fleet.ClusterCA) (err error) {
	roots, err := clusterca.Parse(stored)
	if err != nil {
		return err
	}
	if err := i.folder.prepare(); err != nil {
		return err
	}
	if i.key, _, err = i.folder.ensureKey(); err != nil {
		return err
	}
	made, err := i.issue(stored, roots)
	if err != nil {
		return err
	}
	if err := i.folder.saveCertificate(made.leaf); err != nil {
		return err
	}
	if err := i.folder.saveAuthority(stored); err != nil {
		return err
	}
	i.current.Store(made)
	return nil
}

// Open opens the identity in a data directory. A certificate that is missing,
// has expired, is past two thirds of its life or is not of the root that signs is
// replaced here: that needs nobody's answer. So does a crash between the writes of
// two files. Errors wrap ErrNoIdentity, clusterca.ErrDamaged, clusterca.ErrExpired
// or those of ca.Unseal.
func Open(c Config) (*Identity, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	i := &Identity{config: c, folder: folderOf(c), due: make(chan struct{}, 1)}
	if err := i.open(); err != nil {
		return nil, fmt.Errorf("identity of the node: %w", err)
	}
	return i, nil
}

func (i *Identity) open() error {
	stored, err := i.folder.authority()
	if err != nil {
		return err
	}
	roots, err := clusterca.Parse(stored)
	if err != nil {
		return fmt.Errorf("%s: %w; let the node join again", i.folder.path(authorityFile), err)
	}
	if _, err := roots.Unseal(i.config.SealKey); err != nil {
		return err
	}
	if err := i.folder.prepare(); durable.IsFull(err) || durable.IsReadOnly(err) {
		i.config.Log.Warn("nothing can be written of the node's identity; it is used as it is", "err", err)
	} else if err != nil {
		return err
	}
	key, made, err := i.folder.ensureKey()
	if err != nil {
		return err
	}
	if i.key = key; made {
		i.config.Log.Warn("the node's key was missing, and another one was made: nodes that know this one by the old key do not let it in",
			"file", i.folder.path(keyFile), "mend", ownKeyMend)
	}
	leaf, err := i.folder.certificate()
	if err != nil {
		i.config.Log.Warn("the node's certificate cannot be read, and another one is made", "err", err)
	}
	if why := i.unfit(leaf, roots); why != "" {
		return i.replace(stored, roots, why)
	}
	i.current.Store(i.with(stored, roots, leaf))
	return nil
}

// unfit says why a certificate has to be replaced; "" if it is good.
func (i *Identity) unfit(leaf *x509.Certificate, roots *clusterca.Roots) string {
	now := i.config.Now()
	switch {
	case leaf == nil:
		return "there is none"
	case pki.MatchKey(leaf, i.key) != nil:
		return "it is for another key"
	case leaf.CheckSignatureFrom(roots.Signer()) != nil:
		return "another root signs"
	case !now.Before(clusterca.RenewAt(leaf)):
		return "it is past two thirds of its life"
	}
	if id, err := roots.Verify([]*x509.Certificate{leaf}, clusterca.Client, now); err != nil || id != i.config.NodeID {
		return "it is not good for this node now"
	}
	return ""
}

// replace puts a new certificate into use. That it could not be written is no
// reason not to use it: it can be made again at any time, and a node with a full
// disk must not lose the others when its certificate ends.
func (i *Identity) replace(stored *fleet.ClusterCA, roots *clusterca.Roots, why string) error {
	made, err := i.issue(stored, roots)
	if err != nil {
		return err
	}
	if err := i.folder.saveCertificate(made.leaf); err != nil {
		i.config.Log.Warn("the node's new certificate is in use, but could not be written; the next start makes another", "err", err)
	}
	i.current.Store(made)
	i.config.Log.Info("the node has a new certificate", "node_id", i.config.NodeID, "reason", why,
		"not_after", made.leaf.NotAfter, "root", pki.Fingerprint(roots.Signer()))
	return nil
}

func (i *Identity) issue(stored *fleet.ClusterCA, roots *clusterca.Roots) (*credentials, error) {
	leaf, err := roots.Issue(i.config.SealKey, i.config.NodeID, i.key.Public(), i.config.Now())
	if err != nil {
		return nil, err
	}
	return i.with(stored, roots, leaf), nil
}

func (i *Identity) with(stored *fleet.ClusterCA, roots *clusterca.Roots, leaf *x509.Certificate) *credentials {
	return &credentials{
		stored: stored, roots: roots, leaf: leaf,
		cert: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: i.key, Leaf: leaf},
	}
}

// Adopt takes over the cluster's CA as it is in the replicated state, and reports
// whether anything changed: roots that came or went, or a root that signs now, for
// which the node gets a new certificate at once. The copy on disk is written
// first, so that what the node then says it trusts it still trusts after a crash.
//
// A state that is older than the copy, as a node has it while it catches up after
// a start, changes nothing: the roots of the past are nobody's any more.
func (i *Identity) Adopt(stored *fleet.ClusterCA) (changed bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	had := i.current.Load()
	if had.stored.ModifyIndex == stored.ModifyIndex && sameAuthorities(had.stored, stored) {
		return false, nil
	}
	roots, err := clusterca.Parse(stored)
	if err != nil {
		return false, fmt.Errorf("adopt the cluster's CA: %w", err)
	}
	if roots.ClusterID == had.roots.ClusterID && stored.ModifyIndex < had.stored.ModifyIndex {
		return false, nil
	}
	if _, err := roots.Unseal(i.config.SealKey); err != nil {
		return false, fmt.Errorf("adopt the cluster's CA: %w", err)
	}
	if roots.ClusterID != had.roots.ClusterID {
		i.config.Log.Warn("the state is that of another cluster than the node was made for; the node follows it",
			"cluster_id", roots.ClusterID, "before", had.roots.ClusterID)
	}
	if err := i.folder.saveAuthority(stored); err != nil {
		return false, fmt.Errorf("adopt the cluster's CA: %w", err)
	}
	if sameAuthorities(had.stored, stored) {
		i.current.Store(i.with(stored, roots, had.leaf)) // the index alone is new
		return false, nil
	}
	if why := i.unfit(had.leaf, roots); why != "" {
		if err := i.replace(stored, roots, why); err != nil {
			return false, fmt.Errorf("adopt the cluster's CA: %w", err)
		}
	} else {
		i.current.Store(i.with(stored, roots, had.leaf))
	}
	i.config.Log.Info("the node has taken over the cluster's roots", "roots", roots.Fingerprints(), "modify_index", stored.ModifyIndex)
	i.tell()
	return true, nil
}

func sameAuthorities(a, b *fleet.ClusterCA) bool {
	return slices.EqualFunc(a.Authorities, b.Authorities, func(a, b fleet.ClusterAuthority) bool {
		return a.State == b.State && slices.Equal(a.Certificate, b.Certificate) && slices.Equal(a.SealedKey, b.SealedKey)
	})
}

// Run renews the certificate in time, by the wall clock, until ctx is done.
func (i *Identity) Run(ctx context.Context) error {
	jitter.Loop(ctx, i.config.CheckEvery, jitter.DefaultSchedulerJitter, i.due, func(context.Context) {
		if _, err := i.Renew(false); err != nil {
			i.config.Log.Error("the node's certificate cannot be renewed; it tries again", "err", err, "not_after", i.Leaf().NotAfter)
		}
	})
	return nil
}

// Renew replaces the certificate if it is time for that, or in any case if asked
// to, and reports whether it did.
func (i *Identity) Renew(anyway bool) (renewed bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	had := i.current.Load()
	why := i.unfit(had.leaf, had.roots)
	if why == "" && anyway {
		why = "it was asked for"
	}
	if why == "" {
		return false, nil
	}
	if err := i.replace(had.stored, had.roots, why); err != nil {
		return false, fmt.Errorf("renew the node's certificate: %w", err)
	}
	i.tell()
	return true, nil
}

// present is what a handshake uses at this moment. A certificate that is no good
// now, because the clock was set, is replaced without waiting for the next look.
func (i *Identity) present() *credentials {
	c := i.current.Load()
	if now := i.config.Now(); now.Before(c.leaf.NotBefore) || now.After(c.leaf.NotAfter) {
		select {
		case i.due <- struct{}{}:
		default:
		}
	}
	return c
}

// tell wakes those who subscribed; i.mu is held.
func (i *Identity) tell() {
	for _, c := range i.subscribers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Changed returns a channel that receives something whenever the certificate or
// the roots have changed since the last time.
func (i *Identity) Changed() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := make(chan struct{}, 1)
	i.subscribers = append(i.subscribers, c)
	return c
}

// ID is the node's id.
func (i *Identity) ID() string { return i.config.NodeID }

// ClusterID is that of the cluster which the node belongs to.
func (i *Identity) ClusterID() string { return i.current.Load().roots.ClusterID }

// Leaf is the node's present certificate.
func (i *Identity) Leaf() *x509.Certificate { return i.current.Load().leaf }

// Roots are the roots that the node trusts now, the one that signs first.
func (i *Identity) Roots() []*x509.Certificate { return i.current.Load().roots.Certificates() }

// Authority is the node's copy of the cluster's CA, as it last took it over. A
// node that founds a cluster has it before the state does.
func (i *Identity) Authority() *fleet.ClusterCA {
	c := *i.current.Load().stored
	c.Authorities = slices.Clone(c.Authorities)
	return &c
}

// Describe fills in what a node's record says about its identity.
func (i *Identity) Describe(n *fleet.ClusterNode) error {
	c := i.current.Load()
	fingerprint, err := pki.PublicKeyFingerprint(i.key.Public())
	if err != nil {
		return fmt.Errorf("identity of the node: %w", err)
	}
	n.ID, n.KeyFingerprint = i.config.NodeID, fingerprint
	n.Trusts, n.Signer, n.CertificateNotAfter = c.roots.Fingerprints(), c.roots.SignerOf(c.leaf), c.leaf.NotAfter
	return nil
}
