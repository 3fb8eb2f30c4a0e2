package ca

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/certctl/certctl/shared/pki"
)

// A sealed key is a version octet, the id of the seal key, and then nonce,
// ciphertext and tag of AES-256-GCM over the PKCS #8 form of the private key.
const (
	sealVersion   = 1
	sealKeyIDSize = 8
	sealHeader    = 1 + sealKeyIDSize
)

var (
	// ErrWrongSealKey says that the CA's keys were sealed under another key.
	ErrWrongSealKey = errors.New("the CA's private keys were sealed with another seal key; give this node the seal key that the cluster was made with")
	// ErrSealDamaged says that a sealed key is not what was sealed.
	ErrSealDamaged = errors.New("the sealed private key is damaged; restore the coordinator from a backup")
)

// aead is AES-256-GCM with a random nonce for each message: a seal key seals a
// handful of messages, so that nonces do not meet.
func (k SealKey) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.key[:])
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return gcm, nil
}

// sealContext binds a sealed key to its purpose and its certificate, so that
// whoever can write the state cannot put one in the place of another.
func sealContext(purpose string, cert *x509.Certificate) []byte {
	context := append([]byte("certctl sealed CA key\x00"), purpose...)
	context = append(context, 0)
	return append(context, cert.RawSubjectPublicKeyInfo...)
}

// Seal encrypts the private key of cert, so that only [Unseal] with the same key
// and purpose gets it back. A purpose names what the key may sign.
func Seal(k SealKey, purpose string, cert *x509.Certificate, key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("seal the %s key: %w", purpose, err)
	}
	defer clear(der)
	gcm, err := k.aead()
	if err != nil {
		return nil, err
	}
	id := k.id()
	sealed := append([]byte{sealVersion}, id[:]...)
	return gcm.Seal(sealed, nil, der, sealContext(purpose, cert)), nil
}

// Unseal returns the private key of cert. Errors wrap ErrWrongSealKey or
// ErrSealDamaged.
func Unseal(k SealKey, purpose string, cert *x509.Certificate, sealed []byte) (crypto.Signer, error) {
	if len(sealed) < sealHeader || sealed[0] != sealVersion {
		return nil, fmt.Errorf("%s: %w", purpose, ErrSealDamaged)
	}
	if id := k.id(); subtle.ConstantTimeCompare(id[:], sealed[1:sealHeader]) != 1 {
		return nil, fmt.Errorf("%s is sealed with seal key %x, this node has %x: %w", purpose, sealed[1:sealHeader], id, ErrWrongSealKey)
	}
	gcm, err := k.aead()
	if err != nil {
		return nil, err
	}
	der, err := gcm.Open(nil, nil, sealed[sealHeader:], sealContext(purpose, cert))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", purpose, ErrSealDamaged)
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", purpose, ErrSealDamaged)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok || pki.MatchKey(cert, key) != nil {
		return nil, fmt.Errorf("%s: %w", purpose, ErrSealDamaged)
	}
	return key, nil
}
