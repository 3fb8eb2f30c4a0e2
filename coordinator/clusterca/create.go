package clusterca

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"net/url"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
)

// Lifetimes.
const (
	RootLifetime = 10 * 365 * 24 * time.Hour
	NodeLifetime = 30 * 24 * time.Hour

	// backdate is how far a clock may be behind that of the node that signed: a
	// node with a slow clock has to get as far as being told so. It costs nothing,
	// because being a member is what counts.
	backdate = 24 * time.Hour
	// replaceWithin is how long before its end a root is replaced without being
	// asked for.
	replaceWithin = 365 * 24 * time.Hour
)

// sealPurpose binds the sealed key of a root to its use.
const sealPurpose = "cluster root"

// Create makes the first root of a new cluster, to be stored.
func Create(key ca.SealKey, now time.Time) (fleet.ClusterAuthority, error) {
	signer, err := pki.GenerateKey(pki.ECDSAP256)
	if err != nil {
		return fleet.ClusterAuthority{}, fmt.Errorf("create the cluster's CA: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return fleet.ClusterAuthority{}, fmt.Errorf("create the cluster's CA: %w", err)
	}
	// The id is the key's, so that it needs no source of its own; later roots of
	// the cluster carry it on.
	sum := sha256.Sum256(spki)
	made, err := makeRoot(hex.EncodeToString(sum[:clusterIDSize/2]), key, signer, now)
	if err != nil {
		return fleet.ClusterAuthority{}, fmt.Errorf("create the cluster's CA: %w", err)
	}
	made.State = fleet.AuthorityActive
	return made, nil
}

func makeRoot(cluster string, key ca.SealKey, signer crypto.Signer, now time.Time) (fleet.ClusterAuthority, error) {
	serial := ca.SerialNumber()
	template := &x509.Certificate{
		SerialNumber: serial,
		// The serial number keeps the names of one cluster's roots apart.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("certctl cluster %s root %x", cluster, serial.Bytes()[:4])},
		URIs:                  []*url.URL{clusterURI(cluster)},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	template.NotBefore, template.NotAfter = ca.Validity(now, backdate, RootLifetime, nil)
	cert, err := ca.Sign(template, signer.Public(), nil, signer)
	if err != nil {
		return fleet.ClusterAuthority{}, err
	}
	sealed, err := ca.Seal(key, sealPurpose, cert, signer)
	return fleet.ClusterAuthority{Certificate: cert.Raw, SealedKey: sealed}, err
}
