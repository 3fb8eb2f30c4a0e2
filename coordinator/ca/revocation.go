package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
)

// ErrNoIssuer says that no issuing CA, present or retired, has a key id.
var ErrNoIssuer = errors.New("there is no issuing CA with this key id")

// ListSuffix ends the name of a revocation list in its URL, after the key id of
// the issuing CA that signs it.
const ListSuffix = ".crl"

// keyID names an issuing CA in revocation lists: its subjectKeyIdentifier in
// lower-case hex. It stays the same when the root is rotated.
func keyID(cert *x509.Certificate) string { return hex.EncodeToString(cert.SubjectKeyId) }

// ListURL is what certificates name as the place of the revocation list of an
// issuing CA; "" if they name none.
func (c *CA) ListURL(id string) string {
	if c.config.RevocationURL == "" {
		return ""
	}
	return strings.TrimSuffix(c.config.RevocationURL, "/") + "/" + id + ListSuffix
}

// ListSigners are the key ids of the issuing CAs that sign revocation lists: the
// present one first, then the retired ones, newest first. There are none while
// the CA is sealed.
func (c *CA) ListSigners() []string {
	m := c.material.Load()
	if m == nil {
		return nil
	}
	ids := []string{keyID(m.hierarchies[0].issuing.cert)}
	for i := range m.retired {
		if r := &m.retired[len(m.retired)-1-i]; r.name == issuingAuthority && r.key != nil {
			ids = append(ids, keyID(r.cert))
		}
	}
	return ids
}

// RevocationList makes the revocation list of one issuing CA, in DER: that of a
// number, with those of the entries that this CA has signed. The same arguments
// make the same octets on every node (RFC 6979). Errors wrap ErrSealed or
// ErrNoIssuer.
func (c *CA) RevocationList(id string, list *fleet.RevocationList, entries []*fleet.Revocation) ([]byte, error) {
	m, err := c.opened()
	if err != nil {
		return nil, err
	}
	signer, ok := m.listSigner(id)
	if !ok {
		return nil, ErrNoIssuer
	}
	template := &x509.RevocationList{
		Number:     new(big.Int).SetUint64(list.Number),
		ThisUpdate: list.ThisUpdate.UTC().Truncate(time.Second),
		NextUpdate: list.NextUpdate.UTC().Truncate(time.Second),
	}
	for _, entry := range entries {
		// Of records of earlier versions nobody knows the signer. A serial number
		// has 126 random bits, so that it means nothing on another CA's list.
		if entry.Signer != "" && entry.Signer != id {
			continue
		}
		serial, ok := new(big.Int).SetString(entry.Serial, 16)
		if !ok || serial.Sign() <= 0 {
			return nil, fmt.Errorf("revocation list: stored serial number %.40q is no hexadecimal number", entry.Serial)
		}
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: serial, RevocationTime: entry.At.UTC().Truncate(time.Second), ReasonCode: entry.Reason,
		})
	}
	der, err := x509.CreateRevocationList(nil, template, signer.cert, repeatable{signer.key})
	if err != nil {
		return nil, fmt.Errorf("sign revocation list: %w", err)
	}
	return der, nil
}

func (m *material) listSigner(id string) (authority, bool) {
	if present := m.hierarchies[0].issuing; keyID(present.cert) == id {
		return present, true
	}
	for i := range m.retired {
		if r := &m.retired[len(m.retired)-1-i]; r.name == issuingAuthority && r.key != nil && keyID(r.cert) == id {
			return r.authority, true
		}
	}
	return authority{}, false
}

// repeatable signs the same with the same: without a source of randomness ECDSA
// keys go by RFC 6979.
type repeatable struct{ crypto.Signer }

func (r repeatable) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return r.Signer.Sign(nil, digest, opts)
}
