package ca

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/certctl/certctl/coordinator/fleet"
)

// Check reports whether this node's seal key opens a stored CA, and the CA is
// whole. It changes nothing. Errors are those of Unseal.
func (c *CA) Check(stored *fleet.CA) error {
	key, err := c.sealKey()
	if err != nil {
		return fmt.Errorf("check a stored CA: %w", err)
	}
	if _, err := openMaterial(stored, key); err != nil {
		return fmt.Errorf("open a stored CA with %s: %w", c.sealKeySource(), err)
	}
	return nil
}

// StoredClusterID names the cluster of a stored CA, as ClusterID does, without a
// seal key. Its error wraps ErrDamaged.
func StoredClusterID(stored *fleet.CA) (string, error) {
	for _, a := range stored.Authorities {
		if a.Name != rootAuthority || a.State != fleet.AuthorityActive {
			continue
		}
		cert, err := x509.ParseCertificate(a.Certificate)
		if err != nil {
			return "", fmt.Errorf("certificate %q: %w: %w", a.Name, ErrDamaged, err)
		}
		first, err := firstRoot(stored, cert)
		if err != nil {
			return "", err
		}
		return clusterID(first.PublicKey)
	}
	return "", fmt.Errorf("certificate %q is missing: %w", rootAuthority, ErrDamaged)
}

// SealKeyIDs are the ids of the seal keys that a stored CA's private keys are
// sealed with, as SealKey's String prints them. They are not secret.
func SealKeyIDs(stored *fleet.CA) []string {
	var ids []string
	for _, a := range stored.Authorities {
		if len(a.SealedKey) < sealHeader {
			continue
		}
		if id := hex.EncodeToString(a.SealedKey[1:sealHeader]); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// NoteServed notes of which ModifyIndex the CA is that the server's certificate and
// the root file are of: whoever connects from now on meets this one.
func (c *CA) NoteServed(modified uint64) { c.served.Store(modified) }

// Served is the ModifyIndex of the CA that NoteServed was told of last; 0 if it
// never was.
func (c *CA) Served() uint64 { return c.served.Load() }
