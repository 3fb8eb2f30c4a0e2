package connector

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/smallstep/pkcs7"
)

// maxCertificates bounds what an authority sends for one order.
const maxCertificates = 32

// sequence begins every DER encoding of what is read here (X.690 section 8.9).
const sequence = 0x30

// ParseBundle reads certificates in any of the forms in which authorities hand them
// out: PEM with any number of certificates, PKCS#7 (RFC 2315 section 9, a SignedData
// that has certificates alone) as PEM or DER, one certificate as DER, and the base64
// of either. What cannot be read as a whole is an error of ClassAnswer: half of an
// answer is none. No data at all is ClassNotReady, as some authorities answer before
// a certificate can be fetched.
func ParseBundle(data []byte) (*Bundle, error) {
	if len(data) == 0 || data[0] != sequence { // DER may end in what looks like a blank
		data = bytes.TrimSpace(data)
	}
	if len(data) == 0 {
		return nil, &Error{Class: ClassNotReady, Err: errors.New("the authority sent an empty certificate")}
	}
	if len(data) > MaxAnswer {
		return nil, &Error{Class: ClassAnswer, Err: fmt.Errorf("the certificates are larger than %d bytes", MaxAnswer)}
	}
	certs, err := parse(data)
	switch {
	case err != nil:
		return nil, &Error{Class: ClassAnswer, Err: fmt.Errorf("the certificates cannot be read: %w", err)}
	case len(certs) == 0:
		return nil, &Error{Class: ClassAnswer, Err: errors.New("the authority sent no certificate")}
	case len(certs) > maxCertificates:
		return nil, &Error{Class: ClassAnswer, Err: fmt.Errorf("the authority sent %d certificates; at most %d are read", len(certs), maxCertificates)}
	}
	return &Bundle{Certificates: certs}, nil
}

func parse(data []byte) ([]*x509.Certificate, error) {
	if bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		return parsePEM(data)
	}
	if data[0] == sequence {
		return parseDER(data)
	}
	der, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(data), nil)))
	if err != nil || len(der) == 0 || der[0] != sequence {
		return nil, errors.New("expected PEM, DER or base64")
	}
	return parseDER(der)
}

func parsePEM(data []byte) (certs []*x509.Certificate, err error) {
	for len(data) > 0 {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, errors.New("the PEM is cut short or is followed by something else")
		}
		// pem.Decode looks for the next block; what it passes over was not one.
		if bytes.Count(data[:len(data)-len(rest)], []byte("-----BEGIN ")) != 1 || !bytes.HasPrefix(data, []byte("-----BEGIN ")) {
			return nil, errors.New("the PEM has a damaged block")
		}
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE", "PKCS7", "CMS":
			more, err := parseDER(block.Bytes)
			if err != nil {
				return nil, err
			}
			certs = append(certs, more...)
		default:
			return nil, fmt.Errorf("a PEM block %q does not belong here", clip(block.Type, maxRaw))
		}
		if len(certs) > maxCertificates {
			return certs, nil
		}
		data = bytes.TrimSpace(rest)
	}
	return certs, nil
}

func parseDER(der []byte) ([]*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err == nil {
		return []*x509.Certificate{cert}, nil
	}
	message, failed := pkcs7.Parse(der)
	if failed != nil {
		return nil, err
	}
	return message.Certificates, nil
}
