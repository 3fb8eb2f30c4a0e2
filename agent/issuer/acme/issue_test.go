package acme

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/internal/testca/stepca"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/settings"
)

func TestIssueByHTTP01(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	i := open(t, configFor(ca, newDisk()))
	order := newOrder(t, "a.example", "b.example", "127.0.0.1")

	issued, err := i.Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	roots, err := ca.IssuerRoots(t.Context())
	require.NoError(t, err)
	checkIssued(t, order, issued, roots...)
	assert.Equal(t, "acme", i.Kind())
	expectIssued(t, ca, 1)

	_, err = net.DialTimeout("tcp", loopback(ca.HTTPPort), time.Second)
	require.Error(t, err, "the port is closed when nothing is to be seen on it")

	again, err := i.Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	assert.Equal(t, issued.Chain[0].Raw, again.Chain[0].Raw, "the same order gives the same certificate")
	expectIssued(t, ca, 1)
}

func TestIssueByWebroot(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	root := t.TempDir()
	listener, err := net.Listen("tcp", loopback(ca.HTTPPort))
	require.NoError(t, err)
	server := &http.Server{Handler: http.FileServer(http.Dir(root)), ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	config := configFor(ca, newDisk())
	config.Solver = HTTP01Webroot{Path: root}
	order := newOrder(t, "a.example")
	issued, err := open(t, config).Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	checkIssued(t, order, issued)
	left, err := os.ReadDir(filepath.Join(root, ".well-known", "acme-challenge"))
	require.NoError(t, err)
	assert.Empty(t, left, "the file is removed")
}

func TestIssueByTLSALPN01(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	config := configFor(ca, newDisk())
	config.Solver = TLSALPN01{Listen: loopback(ca.TLSPort)}
	order := newOrder(t, "a.example", "127.0.0.1")
	issued, err := open(t, config).Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	checkIssued(t, order, issued)
}

func TestIssueWildcardByDNSHook(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	config := configFor(ca, newDisk())
	config.Solver = DNS01Exec{Command: []string{writeHook(t), ca.DNSManagementURL}, Timeout: 60 * time.Second}
	// No base name beside the wildcard: the test server's clear-txt removes all
	// records of a name at once.
	order := newOrder(t, "*.wild.example", "other.example")
	issued, err := open(t, config).Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	checkIssued(t, order, issued)
}

// writeHook writes a hook that needs nothing but bash, which every Debian has.
func writeHook(t *testing.T) string {
	t.Helper()
	hook := filepath.Join(t.TempDir(), "hook.sh")
	require.NoError(t, os.WriteFile(hook, []byte(`#!/bin/bash
set -eu
[ "$CERTCTL_ACME_ACTION $CERTCTL_ACME_NAME $CERTCTL_ACME_VALUE" = "$2 $3 $4" ]
address=${1#http://}
post() {
	exec 3<>"/dev/tcp/${address%:*}/${address#*:}"
	printf 'POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s' "$1" "${#2}" "$2" >&3
	read -r _ status _ <&3
	[ "$status" = 200 ]
}
case $2 in
present) post /set-txt "{\"host\":\"$3\",\"value\":\"$4\"}" ;;
cleanup) post /clear-txt "{\"host\":\"$3\"}" ;;
esac
`), 0o755))
	return hook
}

func TestIssueByRFC2136(t *testing.T) {
	t.Parallel()
	zone := startZone(t, "zone.example.", "update-key.", "c2VjcmV0IG9mIHRoZSB6b25lIGtleSE=")
	ca := pebble.Run(t, pebble.Options{DNSServer: zone.address})
	config := configFor(ca, newDisk())
	config.Solver = DNS01RFC2136{
		Server: zone.address,
		TSIG:   &TSIG{Name: "update-key", Secret: settings.NewSecret(zone.secret)},
	}
	// A name and its wildcard: two records of one name at the same time.
	order := newOrder(t, "deep.host.zone.example", "*.deep.host.zone.example")
	issued, err := open(t, config).Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	checkIssued(t, order, issued)
	assert.Empty(t, zone.records(), "both records are removed")
	assert.Equal(t, 4, zone.updates())
}

func TestIssueWithNonceRejectionRandomSleepsAndAuthorizationReuse(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{NonceReject: 50, ValidationSleep: 3 * time.Second, AuthzReuse: 50})
	i := open(t, configFor(ca, newDisk()))
	const orders = 12
	var group sync.WaitGroup
	for n := range orders {
		group.Go(func() {
			// Four names in turn, so that there are authorizations to reuse.
			order := newOrder(t, fmt.Sprintf("chaos%d.example", n%4))
			for {
				issued, err := i.Issue(deadline(t, 60*time.Second), order)
				// Ten rejections in a row happen once in a thousand requests: the
				// engine then continues the order, and so does this test. Once the CSR
				// may have been sent, the outcome counts as unknown.
				if err != nil && t.Context().Err() == nil {
					if class := issuer.Classify(err).Class; class == issuer.ClassRetry || class == issuer.ClassUnknown {
						continue
					}
				}
				if assert.NoError(t, err) {
					checkIssued(t, order, issued)
				}
				return
			}
		})
	}
	group.Wait()
	expectIssued(t, ca, orders)
	assert.Equal(t, 1, ca.Ledger().Accounts, "concurrent orders register one account")
}

func TestProfile(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{Profiles: map[string]pebble.Profile{
		"classic": {Validity: 90 * 24 * time.Hour}, "brief": {Validity: 2 * time.Minute},
	}})
	i := open(t, configFor(ca, newDisk()))
	order := newOrder(t, "a.example")
	order.Profile = "brief"
	issued, err := i.Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	assert.Less(t, time.Until(issued.Chain[0].NotAfter), 3*time.Minute)

	order = newOrder(t, "a.example")
	order.Profile = "unheard-of"
	_, err = i.Issue(deadline(t, 60*time.Second), order)
	assert.Contains(t, requireClass(t, issuer.ClassRefused, err).Mend, "brief, classic")
	assert.Nil(t, order.State, "nothing was placed")
}

func TestPreferredChain(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{AlternateRoots: 2, ChainLength: 2})
	roots, err := ca.IssuerRoots(t.Context())
	require.NoError(t, err)
	require.Len(t, roots, 3)
	d := newDisk()
	for _, root := range roots {
		config := configFor(ca, d)
		config.PreferredChain = root.Subject.CommonName
		order := newOrder(t, "a.example")
		issued, err := open(t, config).Issue(deadline(t, 60*time.Second), order)
		require.NoError(t, err)
		require.Len(t, issued.Chain, 3)
		checkIssued(t, order, issued, root)
	}
	config := configFor(ca, d)
	config.PreferredChain = "Nobody's Root"
	var log logBuffer
	config.Log = slog.New(slog.NewTextHandler(&log, nil))
	order := newOrder(t, "a.example")
	issued, err := open(t, config).Issue(deadline(t, 60*time.Second), order)
	require.NoError(t, err)
	checkIssued(t, order, issued, roots[0])
	assert.Contains(t, log.String(), "no chain with the preferred issuer")
}

func TestIssueFromStepCA(t *testing.T) {
	t.Parallel()
	dns := pebble.Run(t, pebble.Options{}) // for its DNS server
	ca := stepca.Run(t, stepca.Options{Resolver: dns.DNSAddress})
	config := configFor(dns, newDisk())
	config.DirectoryURL = ca.DirectoryURL
	config.RootCAs = x509.NewCertPool()
	config.RootCAs.AddCert(ca.Root)
	for _, solver := range []Solver{HTTP01{Listen: loopback(ca.HTTPPort)}, TLSALPN01{Listen: loopback(ca.TLSPort)}} {
		t.Run(solver.ChallengeType(), func(t *testing.T) {
			config.Solver = solver
			order := newOrder(t, "a.example", "b.example")
			order.Lifetime = 30 * time.Minute
			issued, err := open(t, config).Issue(deadline(t, 60*time.Second), order)
			require.NoError(t, err)
			checkIssued(t, order, issued, ca.Root)
			assert.InDelta(t, 30, time.Until(issued.Chain[0].NotAfter).Minutes(), 2, "step-ca lets the client choose")

			info, err := open(t, config).RenewalInfo(t.Context(), issued.Chain[0])
			require.NoError(t, err)
			assert.Nil(t, info, "step-ca has no renewal information")
		})
	}
}

func TestKeyAlgorithms(t *testing.T) {
	t.Parallel()
	ca := pebble.Run(t, pebble.Options{})
	i := open(t, configFor(ca, newDisk()))
	for _, algorithm := range []pki.KeyAlgorithm{pki.ECDSAP384, pki.RSA2048} {
		order := newOrder(t, "a.example")
		var err error
		order.Key, err = pki.GenerateKey(algorithm)
		require.NoError(t, err)
		issued, err := i.Issue(deadline(t, 60*time.Second), order)
		require.NoError(t, err)
		checkIssued(t, order, issued)
	}
}
