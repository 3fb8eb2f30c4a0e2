package connector

import "sync"

// maxKeys bounds how many certificates a Keys remembers.
const maxKeys = 20_000

// Keys remembers the fingerprints of the public keys of certificates by their serial
// numbers, neither of which ever changes: where a lost order is found by its key, each
// search looks through what the account got of late, and one that was broken off goes
// on where it was. The zero one is empty. It is safe for concurrent use.
type Keys struct {
	mu       sync.Mutex
	bySerial map[string]string
}

// Of is the fingerprint of the key of a certificate, if it is remembered.
func (k *Keys) Of(serial string) (fingerprint string, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fingerprint, known = k.bySerial[serial]
	return fingerprint, known
}

// Set remembers a certificate.
func (k *Keys) Set(serial, fingerprint string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.bySerial == nil || len(k.bySerial) >= maxKeys {
		k.bySerial = map[string]string{}
	}
	k.bySerial[serial] = fingerprint
}
