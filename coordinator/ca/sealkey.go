package ca

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/certctl/certctl/shared/durable"
)

// maxSealKeyFile bounds what is read of a seal key file, in octets.
const maxSealKeyFile = 4 << 10

var (
	// ErrSealKeyMissing says that there is no seal key although the CA's keys
	// were sealed with one.
	ErrSealKeyMissing = errors.New("the seal key of the built-in CA is missing; restore it from its backup: without it the CA's private keys cannot be read")
	// ErrSealKeyMalformed says that a text is no seal key. Errors that wrap it
	// never repeat the text.
	ErrSealKeyMalformed = errors.New("not a seal key: expected 32 octets in base64, as \"openssl rand -base64 32\" prints them")
)

// SealKey is the key under which the CA's private keys are sealed. It prints as
// its id; only Reveal gives the key.
type SealKey struct {
	key [32]byte
}

// NewSealKey makes a key from the system's random source.
func NewSealKey() SealKey {
	var k SealKey
	_, _ = rand.Read(k.key[:]) // never fails: crypto/rand ends the program instead
	return k
}

// ParseSealKey reads a key: 32 octets in base64 of the standard alphabet, with
// white space around it left out. The error wraps ErrSealKeyMalformed.
func ParseSealKey(text string) (SealKey, error) {
	text = strings.TrimSpace(text)
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != 32 || len(text) != base64.StdEncoding.EncodedLen(32) {
		return SealKey{}, ErrSealKeyMalformed
	}
	k := SealKey{key: [32]byte(raw)}
	if k.key == [32]byte{} {
		return SealKey{}, fmt.Errorf("all octets are zero: %w", ErrSealKeyMalformed)
	}
	return k, nil
}

// ReadSealKey reads a key from a file. The error wraps ErrSealKeyMissing if
// there is none.
func ReadSealKey(path string) (SealKey, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return SealKey{}, fmt.Errorf("%s: %w", path, ErrSealKeyMissing)
	}
	if err != nil {
		return SealKey{}, fmt.Errorf("seal key: %w; let the coordinator's user read it", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxSealKeyFile))
	if err != nil {
		return SealKey{}, fmt.Errorf("seal key: %w", err)
	}
	k, err := ParseSealKey(string(text))
	if err != nil {
		return SealKey{}, fmt.Errorf("seal key %s: %w; restore it from its backup", path, err)
	}
	return k, nil
}

// createSealKey makes a new key and writes it to a file that only the
// coordinator's user can read. It is on disk once createSealKey returns.
func createSealKey(path string) (SealKey, error) {
	k := NewSealKey()
	return k, writeSealKey(path, k)
}

func writeSealKey(path string, k SealKey) error {
	own := durable.Ownership{UID: durable.Keep, GID: durable.Keep, Mode: 0o600}
	if err := durable.WriteFileOwned(path, []byte(k.Reveal()+"\n"), own); err != nil {
		return fmt.Errorf("seal key: %w", err)
	}
	return nil
}

// KeepSealKey writes a cluster's seal key, as a node gets it that joins, to a file
// that only the coordinator's user can read. A file that holds this key is left as
// it is; one that holds another is never replaced, and the error wraps
// ErrWrongSealKey.
func KeepSealKey(path string, k SealKey) error {
	there, err := ReadSealKey(path)
	switch {
	case errors.Is(err, ErrSealKeyMissing):
		return writeSealKey(path, k)
	case err != nil:
		return err
	case there != k:
		return fmt.Errorf("%s holds %v, the cluster has %v: move the file away if no other cluster needs it: %w", path, there, k, ErrWrongSealKey)
	}
	return nil
}

// Reveal is the key's text, as ParseSealKey reads it.
func (k SealKey) Reveal() string { return base64.StdEncoding.EncodeToString(k.key[:]) }

// id tells keys apart without telling anything about them.
func (k SealKey) id() [sealKeyIDSize]byte {
	mac := hmac.New(sha256.New, k.key[:])
	mac.Write([]byte("certctl seal key id"))
	return [sealKeyIDSize]byte(mac.Sum(nil)[:sealKeyIDSize])
}

// String is the key's id, which is not secret.
func (k SealKey) String() string { return fmt.Sprintf("seal key %x", k.id()) }

// GoString hides the key from %#v.
func (k SealKey) GoString() string { return k.String() }

// LogValue hides the key from logs.
func (k SealKey) LogValue() slog.Value { return slog.StringValue(k.String()) }
