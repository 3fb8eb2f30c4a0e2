//go:build linux

package e2e

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/pki"
)

// Every key algorithm from the making of the key to the handshake of the program
// that serves it, at the built-in CA and at an ACME authority, and over a renewal
// that keeps the key.
func TestKeyAlgorithms(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	type one struct {
		name, dns string
		algorithm pki.KeyAlgorithm
	}
	var all []one
	var names []string
	var certificates []section
	for _, issuer := range []string{"coordinator", "pebble"} {
		for _, algorithm := range pki.KeyAlgorithms() {
			if issuer == "pebble" && algorithm == pki.Ed25519 {
				continue // TestAKeyThatAnAuthorityRefuses
			}
			c := one{fmt.Sprintf("%s-%s", issuer, algorithm), fmt.Sprintf("%s.%s.example", algorithm, issuer), algorithm}
			all, names = append(all, c), append(names, c.dns)
		}
	}
	web := startWeb(t, names...)
	for i, c := range all {
		issuer := "coordinator"
		if i >= len(pki.KeyAlgorithms()) {
			issuer = "pebble"
		}
		s := certificate(c.name, issuer, c.dns, deployTo(web, i))
		s["key"], s["key_policy"] = c.algorithm, managed.KeyReuse
		certificates = append(certificates, s)
	}
	c := startCoordinator(t)
	a := newAgent(t, "the agent", section{"issuers": section{"pebble": acmeIssuer(ca)}, "certificates": certificates})
	a.enroll(c, "*.coordinator.example")
	a.startAndAwait()
	status := a.awaitSettled(4 * time.Minute) // RSA keys of 4096 bits take their time
	require.Len(t, status.Certificates, len(all))

	fingerprints, keys := map[string]string{}, map[string]string{}
	look := func(c one) (fingerprint, key string) {
		t.Helper()
		await(t, time.Minute, c.name+" is served", func() error {
			// A worker that ends with a reload may drop what it has just accepted.
			leaf, err := servedLeaf(context.Background(), web, c.dns)
			if err != nil {
				return err
			}
			require.NoError(t, leaf.VerifyHostname(c.dns))
			assert.Equal(t, c.algorithm, algorithmOf(leaf.PublicKey), c.name)
			fingerprint = pki.Fingerprint(leaf)
			key, err = pki.PublicKeyFingerprint(leaf.PublicKey)
			return err
		})
		return fingerprint, key
	}
	for _, c := range all {
		fingerprints[c.name], keys[c.name] = look(c)
	}
	for _, c := range status.Certificates {
		assert.Equal(t, managed.KeyReuse, c.KeyPolicy)
		assert.False(t, c.KeyMadeAt.IsZero())
	}

	// Another lifetime renews them, and the keys stay.
	a.stop()
	for _, s := range certificates {
		s["lifetime"] = "72h"
	}
	a.configure(section{"issuers": section{"pebble": acmeIssuer(ca)}, "certificates": certificates})
	a.startAndAwait()
	for _, c := range all {
		await(t, 2*time.Minute, c.name+" is renewed", func() error {
			if fingerprint, _ := look(c); fingerprint == fingerprints[c.name] {
				return errors.New("the certificate is the one before")
			}
			return nil
		})
		var key string
		fingerprints[c.name], key = look(c)
		assert.Equal(t, keys[c.name], key, "%s has another key", c.name)
	}
	a.awaitSettled(time.Minute)

	// Who renews by hand gets other keys.
	asked := a.call("renew", "--all")
	require.Zero(t, asked.status, asked.stderr)
	require.Contains(t, asked.stdout, fmt.Sprintf("%d renewals asked for", len(all)))
	for _, c := range all {
		await(t, 3*time.Minute, c.name+" has another key", func() error {
			if _, key := look(c); key == keys[c.name] {
				return errors.New("the key is the one before")
			}
			return nil
		})
	}
}

func algorithmOf(key crypto.PublicKey) pki.KeyAlgorithm {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return pki.KeyAlgorithm(fmt.Sprintf("rsa-%d", k.N.BitLen()))
	case *ecdsa.PublicKey:
		return pki.KeyAlgorithm("ecdsa-p" + strings.TrimPrefix(k.Params().Name, "P-"))
	case ed25519.PublicKey:
		return pki.Ed25519
	}
	return ""
}

// Authorities for everybody take no Ed25519 key: what they say comes with the mend.
func TestAKeyThatAnAuthorityRefuses(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	s := certificate("refused", "pebble", "refused.example")
	s["key"] = pki.Ed25519
	a := newAgent(t, "the agent", section{"issuers": section{"pebble": acmeIssuer(ca)}, "certificates": []section{s}})
	a.startAndAwait()
	await(t, time.Minute, "the refusal is said", func() error {
		c, err := a.certificate("refused")
		if err != nil {
			return err
		}
		if !strings.Contains(c.NeedsAttention, "choose a key algorithm") {
			return fmt.Errorf("%s, %q", c.State, c.NeedsAttention)
		}
		return nil
	})
}
