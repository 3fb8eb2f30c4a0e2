package pki

import (
	"bytes"
	"crypto/fips140"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
)

const (
	// MaxChainPEM is the largest text that ParseChainPEM reads, in octets.
	MaxChainPEM = 1 << 20
	// MaxChain is the largest number of certificates in one chain.
	MaxChain = 10
)

// ErrBrokenChain says that the certificates do not form one path from the leaf upwards.
var ErrBrokenChain = errors.New("broken certificate chain")

// ParseChainPEM reads one to MaxChain "CERTIFICATE" blocks (RFC 7468 section 5) in the order in which they stand. Any
// other block, a damaged block and a certificate that does not parse are errors.
func ParseChainPEM(data []byte) ([]*x509.Certificate, error) {
	if len(data) > MaxChainPEM {
		return nil, fmt.Errorf("certificate chain: %d octets; at most %d are read", len(data), MaxChainPEM)
	}
	blocks, err := decodePEM(data)
	if err != nil {
		return nil, fmt.Errorf("certificate chain: %w", err)
	}
	if len(blocks) > MaxChain {
		return nil, fmt.Errorf("certificate chain: %d certificates; a chain has at most %d", len(blocks), MaxChain)
	}
	chain := make([]*x509.Certificate, len(blocks))
	for i, block := range blocks {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("certificate chain: block %d is a %q; want only \"CERTIFICATE\"", i+1, clip(block.Type))
		}
		if chain[i], err = x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("certificate chain: certificate %d: %w", i+1, err)
		}
	}
	return chain, nil
}

// EncodeChainPEM writes the certificates as "CERTIFICATE" blocks in the given order.
func EncodeChainPEM(chain []*x509.Certificate) []byte {
	var buf bytes.Buffer
	for _, cert := range chain {
		buf.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return buf.Bytes()
}

// CertificateNames returns the DNS names and IP addresses of a certificate. It is an error if there are none or if one
// is not a name that ParseNames accepts, which certificates of foreign origin may well hold.
func CertificateNames(cert *x509.Certificate) (Names, error) {
	names, err := namesFrom(cert.DNSNames, cert.IPAddresses)
	if err != nil {
		return Names{}, fmt.Errorf("certificate %s: subjectAltName: %w", SerialHex(cert), err)
	}
	return names, nil
}

func namesFrom(dns []string, ips []net.IP) (Names, error) {
	list := slices.Clone(dns)
	for _, ip := range ips {
		list = append(list, ip.String())
	}
	return ParseNames(list)
}

// SortChain returns the path from the leaf upwards, each certificate signed by the next. The leaf is the only
// certificate that issued none of the others. A self-signed root at the end is left out (RFC 8446 section 4.4.2: the
// other side must have it anyway), unless it is the leaf itself. Duplicates and other ways up to a root (cross-signed
// issuers) are left out; where there are several, the order given decides. A certificate that has nothing to do with
// the leaf, or a link whose signature does not verify, gives ErrBrokenChain. The input is not changed.
func SortChain(certs []*x509.Certificate) ([]*x509.Certificate, error) {
	certs, err := distinct(certs)
	if err != nil {
		return nil, err
	}
	parents := parentsOf(certs)
	isIssuer := make([]bool, len(certs))
	for _, list := range parents {
		for _, p := range list {
			isIssuer[p] = true
		}
	}
	leaf := -1
	for i := range certs {
		if isIssuer[i] {
			continue
		}
		if leaf >= 0 {
			return nil, fmt.Errorf("%w: neither %q nor %q issued a certificate of the chain, so the leaf cannot be told; an issuer is missing or a certificate does not belong here",
				ErrBrokenChain, subject(certs[leaf]), subject(certs[i]))
		}
		leaf = i
	}
	if leaf < 0 {
		return nil, fmt.Errorf("%w: the certificates issued each other in a ring", ErrBrokenChain)
	}
	return climb(certs, parents, leaf)
}

// sortFrom is SortChain for a leaf that is already known.
func sortFrom(certs []*x509.Certificate, leaf *x509.Certificate) ([]*x509.Certificate, error) {
	certs, err := distinct(certs)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(certs, leaf.Equal)
	return climb(certs, parentsOf(certs), at)
}

func distinct(certs []*x509.Certificate) ([]*x509.Certificate, error) {
	if len(certs) == 0 {
		return nil, fmt.Errorf("%w: no certificate", ErrBrokenChain)
	}
	if len(certs) > MaxChain {
		return nil, fmt.Errorf("%w: %d certificates; a chain has at most %d", ErrBrokenChain, len(certs), MaxChain)
	}
	var unique []*x509.Certificate
	for _, cert := range certs {
		if !slices.ContainsFunc(unique, cert.Equal) {
			unique = append(unique, cert)
		}
	}
	return unique, nil
}

// parentsOf lists, for each certificate, the indices of those that verifiably issued it, itself excepted.
func parentsOf(certs []*x509.Certificate) [][]int {
	parents := make([][]int, len(certs))
	for i, child := range certs {
		for j, issuer := range certs {
			if i != j && issued(issuer, child) {
				parents[i] = append(parents[i], j)
			}
		}
	}
	return parents
}

func issued(issuer, child *x509.Certificate) bool {
	return bytes.Equal(child.RawIssuer, issuer.RawSubject) && child.CheckSignatureFrom(issuer) == nil
}

// climb walks from the leaf to the first parent of each certificate, and requires that every certificate beside that
// path is some other ancestor of the leaf.
func climb(certs []*x509.Certificate, parents [][]int, leaf int) ([]*x509.Certificate, error) {
	path := []*x509.Certificate{certs[leaf]}
	onPath := map[int]bool{leaf: true}
	for at := leaf; !selfIssued(certs[at]); {
		next := slices.IndexFunc(parents[at], func(p int) bool { return !onPath[p] })
		if next < 0 {
			break
		}
		at = parents[at][next]
		onPath[at] = true
		path = append(path, certs[at])
	}
	if last := path[len(path)-1]; len(path) > 1 && selfIssued(last) {
		path = path[:len(path)-1]
	}

	ancestor := map[int]bool{leaf: true}
	for queue := []int{leaf}; len(queue) > 0; queue = queue[1:] {
		for _, p := range parents[queue[0]] {
			if !ancestor[p] {
				ancestor[p] = true
				queue = append(queue, p)
			}
		}
	}
	for i, cert := range certs {
		if !ancestor[i] {
			return nil, fmt.Errorf("%w: %q did not issue %q or any of its issuers; an issuer is missing or a certificate does not belong here",
				ErrBrokenChain, subject(cert), subject(certs[leaf]))
		}
	}
	return path, nil
}

// selfIssued reports whether the certificate is a root: signed with its own key.
func selfIssued(cert *x509.Certificate) bool {
	if !bytes.Equal(cert.RawIssuer, cert.RawSubject) {
		return false
	}
	if fips140.Enforced() && (cert.SignatureAlgorithm == x509.SHA1WithRSA || cert.SignatureAlgorithm == x509.ECDSAWithSHA1) {
		// An old root, whose own signature nobody relies on: to compute a SHA-1
		// there would end the program.
		return true
	}
	return cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// subject names a certificate in an error.
func subject(cert *x509.Certificate) string {
	if s := cert.Subject.String(); s != "" {
		return clip(s)
	}
	if len(cert.DNSNames) > 0 {
		return clip(cert.DNSNames[0])
	}
	return "serial " + clip(SerialHex(cert))
}
