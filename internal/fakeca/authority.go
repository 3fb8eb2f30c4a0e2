package fakeca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// lifetime of the certificates of the authority itself.
const lifetime = 20 * 365 * 24 * time.Hour

// authority is a root and the intermediate that signs at the moment. Its user holds
// the lock.
type authority struct {
	name   string
	root   *x509.Certificate
	rootBy *ecdsa.PrivateKey
	// issuing has every intermediate there was; the last one signs.
	issuing []*x509.Certificate
	by      *ecdsa.PrivateKey
	serial  func() *big.Int
}

func newAuthority(name string, now time.Time, serial func() *big.Int) (*authority, error) {
	a := &authority{name: name, serial: serial}
	var err error
	if a.rootBy, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	template := a.template("Fake "+name+" Root", now)
	if a.root, err = sign(template, template, a.rootBy.Public(), a.rootBy); err != nil {
		return nil, err
	}
	return a, a.rotate(now)
}

func (a *authority) template(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: a.serial(), Subject: pkix.Name{CommonName: name, Organization: []string{"Nobody"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
}

// rotate makes an intermediate that signs from here on.
func (a *authority) rotate(now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := a.template(fmt.Sprintf("Fake %s Issuing %d", a.name, len(a.issuing)+1), now)
	template.MaxPathLenZero = true
	cert, err := sign(template, a.root, key.Public(), a.rootBy)
	if err != nil {
		return err
	}
	a.issuing, a.by = append(a.issuing, cert), key
	return nil
}

// issue signs a certificate for a server.
func (a *authority) issue(key crypto.PublicKey, serial *big.Int, o *Order, now time.Time, validity time.Duration) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(validity),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	if o.CommonName != "" {
		template.Subject = pkix.Name{CommonName: o.CommonName}
	}
	for _, name := range o.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return sign(template, a.issuing[len(a.issuing)-1], key, a.by)
}

// chain is leaf, its issuer and the root.
func (a *authority) chain(leaf *x509.Certificate) []*x509.Certificate {
	at := slices.IndexFunc(a.issuing, func(c *x509.Certificate) bool { return leaf.CheckSignatureFrom(c) == nil })
	if at < 0 {
		return []*x509.Certificate{leaf}
	}
	return []*x509.Certificate{leaf, a.issuing[at], a.root}
}

func sign(template, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, by)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}
