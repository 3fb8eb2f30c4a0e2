package wire

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// EnrollmentToken lets one or more agents enrol. It names itself (ID), proves
// itself (Secret) and says which root CA the coordinator must show on first
// contact (RootPin, the SHA-256 of the root certificate's DER), so that one
// string is all that a host needs to be told.
//
// Its text is cte1.<id>.<secret>.<pin>, with secret and pin in unpadded
// base64url. It prints as "cte1.<id>.[redacted]"; only Reveal gives the whole.
type EnrollmentToken struct {
	ID      string
	Secret  [32]byte
	RootPin [sha256.Size]byte
}

const enrollmentTokenPrefix = "cte1"

var errToken = errors.New("not an enrolment token: expected cte1.<id>.<secret>.<pin>, as printed by \"certctl token create\"")

// ParseEnrollmentToken reads a token's text. Its errors never repeat the text.
func ParseEnrollmentToken(text string) (EnrollmentToken, error) {
	var t EnrollmentToken
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 4 || parts[0] != enrollmentTokenPrefix {
		return t, errToken
	}
	if !validTokenID(parts[1]) {
		return t, fmt.Errorf("the id is malformed: %w", errToken)
	}
	t.ID = parts[1]
	if err := decodeExact(t.Secret[:], parts[2]); err != nil {
		return EnrollmentToken{}, fmt.Errorf("the secret is cut short or altered: %w", errToken)
	}
	if err := decodeExact(t.RootPin[:], parts[3]); err != nil {
		return EnrollmentToken{}, fmt.Errorf("the pin is cut short or altered: %w", errToken)
	}
	return t, nil
}

func validTokenID(id string) bool {
	if len(id) < 4 || len(id) > 40 {
		return false
	}
	for _, r := range id {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return false
		}
	}
	return true
}

func decodeExact(dst []byte, text string) error {
	// The decoder passes over line breaks; a token has none.
	if len(text) != base64.RawURLEncoding.EncodedLen(len(dst)) {
		return errToken
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != len(dst) {
		return errToken
	}
	copy(dst, raw)
	return nil
}

// Reveal is the whole token, to be shown once to the person who made it.
func (t EnrollmentToken) Reveal() string {
	enc := base64.RawURLEncoding
	return strings.Join([]string{enrollmentTokenPrefix, t.ID, enc.EncodeToString(t.Secret[:]), enc.EncodeToString(t.RootPin[:])}, ".")
}

// SecretHash is what a coordinator keeps of the secret. The secret has 256
// random bits, so that a fast hash is enough.
func (t EnrollmentToken) SecretHash() [sha256.Size]byte { return sha256.Sum256(t.Secret[:]) }

// PinOf is the pin of a root certificate.
func PinOf(root *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(root.Raw) }

// String hides the secret.
func (t EnrollmentToken) String() string { return enrollmentTokenPrefix + "." + t.ID + ".[redacted]" }

// GoString hides the secret from %#v.
func (t EnrollmentToken) GoString() string { return t.String() }

// LogValue hides the secret from logs.
func (t EnrollmentToken) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON refuses: a token is shown on purpose, through Reveal, or not at all.
func (t EnrollmentToken) MarshalJSON() ([]byte, error) {
	return nil, errors.New("an enrolment token is not to be serialized; use Reveal")
}
