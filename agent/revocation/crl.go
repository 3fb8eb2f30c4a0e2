package revocation

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/certctl/certctl/shared/pki"
)

// Extensions of a list and its entries (RFC 5280, sections 5.2 and 5.3).
var (
	oidAuthorityKeyID    = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidCRLNumber         = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidDeltaIndicator    = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingPoint      = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidCertificateIssuer = asn1.ObjectIdentifier{2, 5, 29, 29}
)

// maxSerialLen is how long a serial number may be (RFC 5280, section 4.1.2.2).
const maxSerialLen = 20

// list is a revocation list that is believed, in as little room as it takes: an
// authority may have revoked a quarter of a million certificates.
type list struct {
	issuer     []byte // name and key of who signed it
	nextUpdate time.Time
	points     []string // the places that it is only for; nil is all
	entries    []entry  // by serial
}

type entry struct {
	serial [maxSerialLen]byte
	at     int64 // Unix seconds
	reason int8
}

// readCRL reads a list of issuer and decides whether it is believed. Lists that
// are only about a part of the certificates or reasons, delta lists and lists
// about certificates of others are not.
func readCRL(body []byte, issuer *x509.Certificate, now time.Time) (*list, error) {
	parsed, err := x509.ParseRevocationList(body)
	if err != nil {
		return nil, fmt.Errorf("the list cannot be read: %w", err)
	}
	if !bytes.Equal(parsed.RawIssuer, issuer.RawSubject) ||
		len(parsed.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(parsed.AuthorityKeyId, issuer.SubjectKeyId) {
		return nil, errors.New("the list is of another issuer")
	}
	if err := parsed.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("the list is not signed by the issuer: %w", err)
	}
	if err := fresh(parsed.ThisUpdate, parsed.NextUpdate, now); err != nil {
		return nil, fmt.Errorf("the list cannot be used: %w", err)
	}
	l := &list{issuer: issuerID(issuer), nextUpdate: parsed.NextUpdate}
	for _, e := range parsed.Extensions {
		switch {
		case e.Id.Equal(oidAuthorityKeyID), e.Id.Equal(oidCRLNumber):
		case e.Id.Equal(oidDeltaIndicator):
			return nil, errors.New("the list has changes only (a delta list)")
		case e.Id.Equal(oidIssuingPoint):
			if l.points, err = readIssuingPoint(e.Value); err != nil {
				return nil, err
			}
		case e.Critical:
			return nil, fmt.Errorf("the list has the critical extension %s, which is not known", e.Id)
		}
	}
	l.entries = make([]entry, 0, len(parsed.RevokedCertificateEntries))
	for _, revoked := range parsed.RevokedCertificateEntries {
		for _, e := range revoked.Extensions {
			if e.Id.Equal(oidCertificateIssuer) {
				return nil, errors.New("the list is about certificates of others (an indirect list)")
			}
		}
		serial, ok := serialKey(revoked.SerialNumber)
		if !ok || revoked.ReasonCode == pki.ReasonRemoveFromCRL {
			continue
		}
		l.entries = append(l.entries, entry{serial: serial, at: revoked.RevocationTime.Unix(), reason: int8(revoked.ReasonCode)})
	}
	slices.SortFunc(l.entries, func(a, b entry) int { return bytes.Compare(a.serial[:], b.serial[:]) })
	return l, nil
}

// issuerID names who signs: a key and a name.
func issuerID(issuer *x509.Certificate) []byte {
	return append(bytes.Clone(issuer.RawSubject), issuer.RawSubjectPublicKeyInfo...)
}

// serialKey is a serial number in the form of an entry.
func serialKey(serial *big.Int) (key [maxSerialLen]byte, ok bool) {
	if serial == nil || serial.Sign() < 0 || serial.BitLen() > 8*maxSerialLen {
		return key, false
	}
	serial.FillBytes(key[:])
	return key, true
}

// about is what the list says of leaf, whose own distribution points tell whether
// it is meant for it.
func (l *list) about(leaf, issuer *x509.Certificate) (answer, error) {
	if !bytes.Equal(l.issuer, issuerID(issuer)) {
		return answer{}, errors.New("the list is of another issuer")
	}
	if l.points != nil && !slices.ContainsFunc(l.points, func(p string) bool { return slices.Contains(leaf.CRLDistributionPoints, p) }) {
		return answer{}, errors.New("the list is one part of several, and not the one of this certificate")
	}
	serial, ok := serialKey(leaf.SerialNumber)
	if !ok {
		return answer{}, errors.New("the serial number of the certificate is too long")
	}
	a := answer{result: ResultGood, nextUpdate: l.nextUpdate}
	if at, found := slices.BinarySearchFunc(l.entries, serial, func(e entry, s [maxSerialLen]byte) int { return bytes.Compare(e.serial[:], s[:]) }); found {
		a.result, a.revokedAt, a.reason = ResultRevoked, time.Unix(l.entries[at].at, 0).UTC(), int(l.entries[at].reason)
	}
	return a, nil
}

// issuingPoint is IssuingDistributionPoint (RFC 5280, section 5.2.5).
type issuingPoint struct {
	Point          asn1.RawValue  `asn1:"optional,tag:0"`
	UserOnly       bool           `asn1:"optional,tag:1"`
	CAOnly         bool           `asn1:"optional,tag:2"`
	SomeReasons    asn1.BitString `asn1:"optional,tag:3"`
	Indirect       bool           `asn1:"optional,tag:4"`
	AttributesOnly bool           `asn1:"optional,tag:5"`
}

const (
	tagFullName = 0 // of DistributionPointName
	tagURI      = 6 // of GeneralName
)

// readIssuingPoint reads which certificates a list is about: nil is all of its
// issuer. What it does not cover is an error.
func readIssuingPoint(der []byte) (points []string, err error) {
	var p issuingPoint
	if rest, err := asn1.Unmarshal(der, &p); err != nil || len(rest) > 0 {
		return nil, errors.New("the list does not say clearly which certificates it is about")
	}
	switch {
	case p.Indirect:
		return nil, errors.New("the list is about certificates of others (an indirect list)")
	case p.CAOnly, p.AttributesOnly:
		return nil, errors.New("the list is not about certificates of hosts")
	case p.SomeReasons.BitLength > 0:
		return nil, errors.New("the list is about some reasons only")
	case len(p.Point.FullBytes) == 0:
		return nil, nil
	}
	var name asn1.RawValue
	if rest, err := asn1.Unmarshal(p.Point.Bytes, &name); err != nil || len(rest) > 0 || name.Class != asn1.ClassContextSpecific || name.Tag != tagFullName {
		return nil, errors.New("the list does not name the place that it is for")
	}
	points = []string{}
	for rest := name.Bytes; len(rest) > 0; {
		var general asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &general); err != nil {
			return nil, errors.New("the list does not name the place that it is for")
		}
		if general.Class == asn1.ClassContextSpecific && general.Tag == tagURI {
			points = append(points, string(general.Bytes))
		}
	}
	return points, nil
}
