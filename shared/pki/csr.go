package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// MaxCSR is the largest certificate request, in octets of DER, that ParseCSR reads.
	MaxCSR = 16 << 10

	// maxCommonName is ub-common-name of RFC 5280 appendix A.1.
	maxCommonName = 64
)

var (
	oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidExtendedKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidTLSFeature       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}
)

// CSR is a certificate request that ParseCSR has checked.
type CSR struct {
	// Names are the identities that the request asks for; never empty.
	Names Names
	// PublicKey satisfies CheckPublicKey, and the requester has proved to hold its private key.
	PublicKey crypto.PublicKey
	// Raw is the request in DER as it was received.
	Raw []byte
}

// CreateCSR makes a PKCS #10 request in DER for the names, signed by key. The names go into subjectAltName; the subject
// is empty but for the common name, which is the first DNS name if that has at most 64 octets: some programs still show
// it, none should trust it.
func CreateCSR(key crypto.Signer, names Names) ([]byte, error) {
	if names.IsZero() {
		return nil, fmt.Errorf("create certificate request: %w", ErrNoNames)
	}
	if err := CheckPublicKey(key.Public()); err != nil {
		return nil, fmt.Errorf("create certificate request: %w", err)
	}
	template := &x509.CertificateRequest{DNSNames: names.DNS}
	for _, ip := range names.IPs {
		template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
	}
	if len(names.DNS) > 0 && len(names.DNS[0]) <= maxCommonName {
		template.Subject = pkix.Name{CommonName: names.DNS[0]}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("create certificate request: %w", err)
	}
	return der, nil
}

// ParseCSR reads a PKCS #10 request in DER of at most MaxCSR octets. It checks the signature, which proves possession
// of the key, and the strength of the key, and it accepts only what certctl can decide about: DNS names and IP addresses
// in subjectAltName, a subject that is empty or one of those names, and harmless extensions. A request for anything
// more (e-mail addresses, URIs, other name types, a CA certificate, an organisation) is refused, never trimmed.
func ParseCSR(der []byte) (*CSR, error) {
	if len(der) > MaxCSR {
		return nil, fmt.Errorf("certificate request: %d octets; at most %d are read", len(der), MaxCSR)
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certificate request: want PKCS #10 in DER: %w", err)
	}
	// The strength check stands first: it bounds what the signature check can cost.
	if err := CheckPublicKey(req.PublicKey); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	switch req.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519:
	default:
		return nil, fmt.Errorf("certificate request: signed with %v; sign with SHA-256 or better, or Ed25519", req.SignatureAlgorithm)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: the signature does not prove possession of the key: %w", err)
	}
	if err := checkRequestExtensions(req); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	names, err := namesFrom(req.DNSNames, req.IPAddresses)
	if err != nil {
		return nil, fmt.Errorf("certificate request: subjectAltName: %w", err)
	}
	if err := checkSubject(req.Subject, names); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	return &CSR{Names: names, PublicKey: req.PublicKey, Raw: slices.Clone(der)}, nil
}

// checkSubject allows an empty subject or a single common name that subjectAltName holds too, so that no unchecked
// identity reaches an issuer that copies the subject.
func checkSubject(subject pkix.Name, names Names) error {
	if len(subject.Names) == 0 {
		return nil
	}
	if len(subject.Names) > 1 || !subject.Names[0].Type.Equal(oidCommonName) {
		return fmt.Errorf("subject %q: want no subject or one common name; the issuer adds the rest", clip(subject.String()))
	}
	cn, err := ParseNames([]string{subject.CommonName})
	if err != nil {
		return fmt.Errorf("common name: %w", err)
	}
	if !names.Contains(cn) {
		return fmt.Errorf("common name %q is not in subjectAltName; add it there or leave it out", clip(subject.CommonName))
	}
	return nil
}

func checkRequestExtensions(req *x509.CertificateRequest) error {
	for _, ext := range req.Extensions {
		switch {
		case ext.Id.Equal(oidSubjectAltName):
			if err := checkAltNameTypes(ext.Value); err != nil {
				return err
			}
		case ext.Id.Equal(oidBasicConstraints):
			if err := checkNotCA(ext.Value); err != nil {
				return err
			}
		case ext.Id.Equal(oidSubjectKeyID), ext.Id.Equal(oidKeyUsage),
			ext.Id.Equal(oidExtendedKeyUsage), ext.Id.Equal(oidTLSFeature):
		default:
			return fmt.Errorf("extension %v is not supported; leave it out", ext.Id)
		}
	}
	return nil
}

// checkAltNameTypes looks at the raw extension because crypto/x509 skips the GeneralName types that it does not know.
func checkAltNameTypes(value []byte) error {
	outer := cryptobyte.String(value)
	var list cryptobyte.String
	if !outer.ReadASN1(&list, cryptobyte_asn1.SEQUENCE) || !outer.Empty() {
		return errors.New("subjectAltName is damaged; make a new request")
	}
	const dNSName, iPAddress = 2, 7
	for !list.Empty() {
		var name cryptobyte.String
		var tag cryptobyte_asn1.Tag
		if !list.ReadAnyASN1(&name, &tag) {
			return errors.New("subjectAltName is damaged; make a new request")
		}
		if tag != cryptobyte_asn1.Tag(dNSName).ContextSpecific() && tag != cryptobyte_asn1.Tag(iPAddress).ContextSpecific() {
			return fmt.Errorf("subjectAltName holds a name of type [%d]; only DNS names and IP addresses are issued", tag&0x1f)
		}
	}
	return nil
}

func checkNotCA(value []byte) error {
	outer := cryptobyte.String(value)
	var constraints cryptobyte.String
	isCA := false
	if !outer.ReadASN1(&constraints, cryptobyte_asn1.SEQUENCE) || !outer.Empty() {
		return errors.New("basicConstraints is damaged; make a new request")
	}
	if constraints.PeekASN1Tag(cryptobyte_asn1.BOOLEAN) && !constraints.ReadASN1Boolean(&isCA) {
		return errors.New("basicConstraints is damaged; make a new request")
	}
	if isCA {
		return errors.New("asks for a CA certificate; only end-entity certificates are issued")
	}
	return nil
}
