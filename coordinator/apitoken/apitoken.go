// Package apitoken is the text form of the tokens with which people and
// programs use the API, and what a coordinator keeps of them.
//
// A token is cta1.<id>.<secret>: the id names it in lists and in the journal,
// the secret proves it. It prints as "cta1.<id>.[redacted]"; only Reveal gives
// the whole.
package apitoken

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

const (
	prefix = "cta1"

	// idRandom is the number of random octets behind an id, which is not secret
	// and only has to be unique.
	idRandom = 10
	minID    = 4
	maxID    = 40
)

// ErrMalformed says that a text is no API token. Errors that wrap it never
// repeat the text.
var ErrMalformed = errors.New("not an API token: expected cta1.<id>.<secret>, as printed when the token was created")

// Token is an API token. Its secret has 256 random bits. The zero value is no
// token.
type Token struct {
	ID     string // 4 to 40 lower-case letters and digits
	Secret [32]byte
}

// New makes a token from the system's random source.
func New() Token {
	var id [idRandom]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	return Renew(strings.ToLower(base32.StdEncoding.EncodeToString(id[:])))
}

// Renew makes a token of an id that there is, with a secret of its own.
func Renew(id string) Token {
	t := Token{ID: id}
	_, _ = rand.Read(t.Secret[:]) // never fails: crypto/rand ends the program instead
	return t
}

// Parse reads a token's text; white space around it, as a file's last newline,
// is left out. The error wraps ErrMalformed.
func Parse(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 3 || parts[0] != prefix {
		return Token{}, ErrMalformed
	}
	if !validID(parts[1]) {
		return Token{}, fmt.Errorf("the id is malformed: %w", ErrMalformed)
	}
	// The length of the text too, because line breaks are skipped by the decoder.
	secret, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(secret) != len(Token{}.Secret) || len(parts[2]) != base64.RawURLEncoding.EncodedLen(len(secret)) {
		return Token{}, fmt.Errorf("the secret is cut short or altered: %w", ErrMalformed)
	}
	return Token{ID: parts[1], Secret: [32]byte(secret)}, nil
}

func validID(id string) bool {
	if len(id) < minID || len(id) > maxID {
		return false
	}
	for _, r := range id {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return false
		}
	}
	return true
}

// Reveal is the whole token, to be shown once to the person who made it.
func (t Token) Reveal() string {
	return prefix + "." + t.ID + "." + base64.RawURLEncoding.EncodeToString(t.Secret[:])
}

// Hash is what a coordinator keeps: SHA-256 of the secret. The secret is not
// one that a person chose, so that a fast hash is enough.
func (t Token) Hash() [sha256.Size]byte { return sha256.Sum256(t.Secret[:]) }

// Matches reports, in constant time, whether hash is that of the token's secret.
func (t Token) Matches(hash [sha256.Size]byte) bool {
	own := t.Hash()
	return subtle.ConstantTimeCompare(own[:], hash[:]) == 1
}

// String hides the secret.
func (t Token) String() string { return prefix + "." + t.ID + ".[redacted]" }

// GoString hides the secret from %#v.
func (t Token) GoString() string { return t.String() }

// LogValue hides the secret from logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON refuses: a token is shown on purpose, through Reveal, or not at all.
func (t Token) MarshalJSON() ([]byte, error) {
	return nil, errors.New("an API token is not to be serialized; use Reveal")
}
