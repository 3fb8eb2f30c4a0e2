// Package jointoken is the text form of the one-time tokens with which new nodes
// join a cluster of coordinators.
//
// A token is ctj1.<id>.<secret>.<pin>.<urls>: the id names it in lists and in the
// journal, the secret proves it, the pin is the SHA-256 of a root certificate
// that the coordinator must show on first contact, and the URLs say where that
// is, so that one string is all that a new node needs to be told. It prints as
// "ctj1.<id>.[redacted]"; only Reveal gives the whole.
package jointoken

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
)

const (
	prefix   = "ctj1"
	idRandom = 10 // octets behind an id, which is not secret and only has to be unique
	minID    = 4
	maxID    = 40

	// MaxURLs is how many addresses a token holds.
	MaxURLs = 8
	// MaxURL is how long each of them may be, in octets.
	MaxURL = 512
)

var encoding = base64.RawURLEncoding.Strict()

// ErrMalformed says that a text is no join token. Errors that wrap it never
// repeat the text.
var ErrMalformed = errors.New("not a join token: expected ctj1.<id>.<secret>.<pin>.<urls>, as printed by \"certctl cluster join-token create\"")

// Token lets one node join. The zero value is no token.
type Token struct {
	ID      string // 4 to 40 lower-case letters and digits
	Secret  [32]byte
	RootPin [sha256.Size]byte // of the DER of the root that the coordinator shows
	// URLs of the HTTPS servers of the cluster's nodes, at least one.
	URLs []string
}

// New makes a token with a secret from the system's random source. Its error
// names a URL that cannot stand in a token.
func New(root *x509.Certificate, urls ...string) (Token, error) {
	var id [idRandom]byte
	t := Token{RootPin: sha256.Sum256(root.Raw), URLs: slices.Clone(urls)}
	if err := checkURLs(urls); err != nil {
		return Token{}, err
	}
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	_, _ = rand.Read(t.Secret[:])
	t.ID = strings.ToLower(base32.StdEncoding.EncodeToString(id[:]))
	return t, nil
}

func checkURLs(urls []string) error {
	if len(urls) == 0 || len(urls) > MaxURLs {
		return fmt.Errorf("a join token holds 1 to %d URLs, not %d", MaxURLs, len(urls))
	}
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil || len(text) > MaxURL || u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
			u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" || strings.ContainsAny(text, " \n") {
			return fmt.Errorf("cannot use %.80q as the URL of a coordinator; expected a URL such as https://certctl.example.com:8443", text)
		}
	}
	return nil
}

// Parse reads a token's text; white space around it, as a file's last newline,
// is left out. The error wraps ErrMalformed.
func Parse(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 5 || parts[0] != prefix {
		return Token{}, ErrMalformed
	}
	t := Token{ID: parts[1]}
	if !validID(t.ID) {
		return Token{}, fmt.Errorf("the id is malformed: %w", ErrMalformed)
	}
	if !decodeExact(t.Secret[:], parts[2]) {
		return Token{}, fmt.Errorf("the secret is cut short or altered: %w", ErrMalformed)
	}
	if !decodeExact(t.RootPin[:], parts[3]) {
		return Token{}, fmt.Errorf("the pin is cut short or altered: %w", ErrMalformed)
	}
	urls, err := encoding.DecodeString(parts[4])
	if err != nil || encoding.EncodeToString(urls) != parts[4] {
		return Token{}, fmt.Errorf("the end is cut short or altered: %w", ErrMalformed)
	}
	t.URLs = strings.Split(string(urls), " ")
	if checkURLs(t.URLs) != nil {
		return Token{}, fmt.Errorf("the URLs are cut short or altered: %w", ErrMalformed)
	}
	return t, nil
}

// decodeExact decodes a text of exactly the right length. The decoder passes over
// line breaks; a token has none.
func decodeExact(dst []byte, text string) bool {
	if len(text) != encoding.EncodedLen(len(dst)) {
		return false
	}
	raw, err := encoding.DecodeString(text)
	return err == nil && copy(dst, raw) == len(dst)
}

func validID(id string) bool {
	if len(id) < minID || len(id) > maxID {
		return false
	}
	return strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// Reveal is the whole token, to be shown once to the person who made it.
func (t Token) Reveal() string {
	return strings.Join([]string{
		prefix, t.ID, encoding.EncodeToString(t.Secret[:]), encoding.EncodeToString(t.RootPin[:]),
		encoding.EncodeToString([]byte(strings.Join(t.URLs, " "))),
	}, ".")
}

// SecretHash is what a cluster keeps of the secret. The secret has 256 random
// bits, so that a fast hash is enough.
func (t Token) SecretHash() [sha256.Size]byte { return sha256.Sum256(t.Secret[:]) }

// String hides the secret.
func (t Token) String() string { return prefix + "." + t.ID + ".[redacted]" }

// GoString hides the secret from %#v.
func (t Token) GoString() string { return t.String() }

// LogValue hides the secret from logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON refuses: a token is shown on purpose, through Reveal, or not at all.
func (t Token) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a join token is not to be serialized; use Reveal")
}
