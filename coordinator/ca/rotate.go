package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/trust"
)

// Step is one step of the rotation of an authority.
type Step string

// Steps. The root takes all three, in this order; the CAs beneath it take one,
// which is StepPublish in name and does everything.
const (
	StepPublish  Step = "publish"  // agents learn the new root beside the old one
	StepActivate Step = "activate" // the new one signs; the old one is still trusted
	StepRetire   Step = "retire"   // the old one is trusted no more, and its key goes
)

// maxRetired is how many retired issuing CAs are kept. Retired identity CAs are
// kept all, for hosts that come back after years.
const maxRetired = 8

// ErrRotation says that a step of a rotation does not fit what is there.
var ErrRotation = errors.New("the CA cannot be rotated so now")

// Rotation is a step that is asked for.
type Rotation struct {
	Actor     string
	Authority string // "root", "identity" or "issuing"
	Step      Step
}

// Rotate makes the change that takes the stored CA one step on, to be stored. It
// changes nothing by itself, so that a crash before the change is stored leaves
// everything as it was. Errors wrap ErrRotation, or those of Unseal.
func (c *CA) Rotate(stored *fleet.CA, r Rotation) (fleet.ChangeCA, error) {
	change := fleet.ChangeCA{Actor: r.Actor, Base: stored.ModifyIndex, What: fmt.Sprintf("%s of the %s CA", r.Step, r.Authority)}
	key, err := c.sealKey()
	if err != nil {
		return change, fmt.Errorf("rotate the built-in CA: %w", err)
	}
	opened, err := openMaterial(stored, key)
	if err != nil {
		return change, fmt.Errorf("rotate the built-in CA with %s: %w", c.sealKeySource(), err)
	}
	w := &rotation{
		foundry: foundry{organization: c.config.Name, cluster: opened.clusterID, now: c.now(), key: key},
		stored:  stored, opened: opened, authorities: slices.Clone(stored.Authorities),
		generations: slices.Clone(stored.Generations),
	}
	if err := w.firstGeneration(); err != nil {
		return change, err
	}
	switch {
	case r.Authority == rootAuthority && r.Step == StepPublish:
		err = w.publishRoot()
	case r.Authority == rootAuthority && r.Step == StepActivate:
		err = w.activateRoot()
	case r.Authority == rootAuthority && r.Step == StepRetire:
		err = w.retireRoot()
	case roles[r.Authority].title != "" && r.Step == StepPublish:
		err = w.replace(r.Authority)
	default:
		err = fmt.Errorf("%w: there is no step %q of the authority %q", ErrRotation, r.Step, r.Authority)
	}
	if err != nil {
		return change, err
	}
	change.Authorities, change.Generations = w.authorities, w.generations[len(stored.Generations):]
	return change, nil
}

// FirstGeneration makes the change that gives a CA its first generation of
// trust; needed is false if it has one. A CA that was made before there were
// generations gets its own from the root that it was made with.
func (c *CA) FirstGeneration(stored *fleet.CA, actor string) (change fleet.ChangeCA, needed bool, err error) {
	if len(stored.Generations) > 0 {
		return change, false, nil
	}
	key, err := c.sealKey()
	if err != nil {
		return change, false, fmt.Errorf("first trust generation: %w", err)
	}
	w := &rotation{foundry: foundry{key: key}, stored: stored}
	if err := w.firstGeneration(); err != nil {
		return change, false, err
	}
	return fleet.ChangeCA{
		Actor: actor, Base: stored.ModifyIndex, Authorities: stored.Authorities, Generations: w.generations,
		What: "first generation of trust",
	}, true, nil
}

// A rotation is a change of the CA while it is made.
type rotation struct {
	foundry
	stored      *fleet.CA
	opened      *material
	authorities []fleet.Authority
	generations [][]byte
}

// signer opens the root in a state; nil if there is none.
func (w *rotation) signer(state fleet.AuthorityState) (*trust.Signer, error) {
	i := slices.IndexFunc(w.authorities, func(a fleet.Authority) bool { return a.Name == rootAuthority && a.State == state })
	if i < 0 {
		return nil, nil
	}
	cert, err := x509.ParseCertificate(w.authorities[i].Certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate %q: %w: %w", rootAuthority, ErrDamaged, err)
	}
	key, err := Unseal(w.key, rootAuthority, cert, w.authorities[i].SealedKey)
	if err != nil {
		return nil, err
	}
	return &trust.Signer{Root: cert, Key: key}, nil
}

// rotating reports whether the root is being rotated.
func (w *rotation) rotating() bool { return len(w.opened.hierarchies) > 1 }

func (w *rotation) firstGeneration() error {
	if len(w.generations) > 0 {
		return nil
	}
	w.authorities = slices.Clone(w.stored.Authorities)
	root, err := w.signer(fleet.AuthorityActive)
	if err != nil {
		return err
	}
	if root == nil {
		return fmt.Errorf("certificate %q is missing: %w", rootAuthority, ErrDamaged)
	}
	return w.generation(w.stored.CreatedAt, []*x509.Certificate{root.Root}, *root)
}

// generation adds a signed generation.
func (w *rotation) generation(at time.Time, roots []*x509.Certificate, signers ...trust.Signer) error {
	g := trust.Generation{Number: uint64(len(w.generations)) + 1, CreatedAt: at, Roots: roots}
	if n := len(w.generations); n == trust.MaxGenerations {
		return fmt.Errorf("%w: the chain of trust has come to its limit of %d generations; set up a new cluster and enrol the agents there", ErrRotation, n)
	} else if n > 0 {
		last, err := trust.Parse(w.generations[n-1])
		if err != nil {
			return fmt.Errorf("trust generation %d: %w: %w", n, ErrDamaged, err)
		}
		g.Previous = last.Digest()
	}
	signed, err := trust.Sign(g, signers...)
	if err != nil {
		return err
	}
	w.generations = append(w.generations, signed)
	return nil
}

// publishRoot makes a new root, certifies the present CAs under it, and tells
// agents to trust it besides the old one.
func (w *rotation) publishRoot() error {
	if w.rotating() {
		return fmt.Errorf("%w: the root is being rotated already; activate or retire it", ErrRotation)
	}
	old, err := w.signer(fleet.AuthorityActive)
	if err != nil {
		return err
	}
	key, err := pki.GenerateKey(pki.ECDSAP384)
	if err != nil {
		return err
	}
	root, made, err := w.root(key)
	if err != nil {
		return err
	}
	made.State = fleet.AuthorityPublished
	w.authorities = append(w.authorities, made)
	for _, a := range w.stored.Authorities {
		if a.Name == rootAuthority || a.State != fleet.AuthorityActive {
			continue
		}
		present, err := x509.ParseCertificate(a.Certificate)
		if err != nil {
			return fmt.Errorf("certificate %q: %w: %w", a.Name, ErrDamaged, err)
		}
		// The same name and key: what the CA has signed leads to both roots.
		cert, err := w.certify(a.Name, present.Subject, present.PublicKey, authority{cert: root, key: key})
		if err != nil {
			return err
		}
		w.authorities = append(w.authorities, fleet.Authority{
			Name: a.Name, Certificate: cert.Raw, SealedKey: a.SealedKey, State: fleet.AuthorityPublished,
		})
	}
	return w.generation(w.now, []*x509.Certificate{old.Root, root}, *old, trust.Signer{Root: root, Key: key})
}

func (w *rotation) activateRoot() error {
	published, err := w.signer(fleet.AuthorityPublished)
	if err != nil {
		return err
	}
	if published == nil {
		return fmt.Errorf("%w: there is no published root to activate; publish one first", ErrRotation)
	}
	for i := range w.authorities {
		switch a := &w.authorities[i]; a.State {
		case fleet.AuthorityActive:
			a.State = fleet.AuthorityRetiring
		case fleet.AuthorityPublished:
			a.State = fleet.AuthorityActive
		}
	}
	return nil
}

// retireRoot takes the old root out of what agents trust. Its key signs that,
// and goes.
func (w *rotation) retireRoot() error {
	old, err := w.signer(fleet.AuthorityRetiring)
	if err != nil {
		return err
	}
	if old == nil {
		return fmt.Errorf("%w: there is no replaced root to retire; activate a published one first", ErrRotation)
	}
	active, err := w.signer(fleet.AuthorityActive)
	if err != nil {
		return err
	}
	if err := w.generation(w.now, []*x509.Certificate{active.Root}, *old, *active); err != nil {
		return err
	}
	w.authorities = slices.DeleteFunc(w.authorities, func(a fleet.Authority) bool {
		return a.State == fleet.AuthorityRetiring && a.Name == rootAuthority
	})
	return w.retire(func(a *fleet.Authority) bool { return a.State == fleet.AuthorityRetiring })
}

// replace makes a new identity or issuing CA under the same root, which signs
// from now on.
func (w *rotation) replace(name string) error {
	if w.rotating() {
		return fmt.Errorf("%w: the root is being rotated; retire the old root first", ErrRotation)
	}
	root, err := w.signer(fleet.AuthorityActive)
	if err != nil {
		return err
	}
	made, err := w.beneath(name, authority{cert: root.Root, key: root.Key})
	if err != nil {
		return err
	}
	if err := w.retire(func(a *fleet.Authority) bool { return a.Name == name && a.State == fleet.AuthorityActive }); err != nil {
		return err
	}
	w.authorities = append(w.authorities, made)
	return nil
}

// retire takes the keys from some authorities, and forgets the oldest retired
// issuing CAs. Issuing CAs keep their keys until then: what they have signed may
// have to be revoked.
func (w *rotation) retire(which func(*fleet.Authority) bool) error {
	issuing := 0
	for i := range w.authorities {
		a := &w.authorities[i]
		if which(a) {
			a.State = fleet.AuthorityRetired
			if a.Name != issuingAuthority {
				a.SealedKey = nil
			}
		}
		if a.Name == issuingAuthority && a.State == fleet.AuthorityRetired {
			issuing++
		}
	}
	w.authorities = slices.DeleteFunc(w.authorities, func(a fleet.Authority) bool {
		if a.Name != issuingAuthority || a.State != fleet.AuthorityRetired || issuing <= maxRetired {
			return false
		}
		issuing--
		return true
	})
	if len(w.authorities) > fleet.MaxAuthorities-4 {
		return fmt.Errorf("%w: %d identity CAs of earlier times are kept, and no more fit; set up a new cluster and enrol the agents there", ErrRotation, len(w.authorities))
	}
	return nil
}
