//go:build linux

package e2e

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/pki"
)

// list fetches the revocation list of the present issuing CA without credentials.
func (c *coordinator) list() ([]byte, *x509.RevocationList, error) {
	authorities := c.authority().Authorities
	at := slices.IndexFunc(authorities, func(a resource.Authority) bool { return a.Name == "issuing" && a.State == "active" })
	if at < 0 {
		return nil, nil, fmt.Errorf("no issuing CA in %v", authorities)
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, c.url()+authorities[at].CRLPath, nil)
	if err != nil {
		return nil, nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	der, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s: %w", resp.Status, err)
	}
	list, err := x509.ParseRevocationList(der)
	return der, list, err
}

// An operator revokes a certificate of the built-in CA: its host replaces it, the
// list names it, the coordinator is killed and its list is the same, and OpenSSL
// refuses the one and takes the other.
func TestRevocation(t *testing.T) {
	t.Parallel()
	c := startCoordinator(t)
	target := filepath.Join(t.TempDir(), "fullchain.pem")
	a := newAgent(t, "the agent", section{"certificates": []section{
		certificate("www", "coordinator", "www.example", section{"files": section{"fullchain": target, "key": filepath.Join(filepath.Dir(target), "key.pem")}}),
	}})
	a.enroll(c, "*.example")
	a.startAndAwait()
	lost := a.awaitSettled(2 * time.Minute).Certificates[0]
	a.awaitReported(c, "www", lost.Serial, 2*time.Minute)
	old, err := os.ReadFile(target)
	require.NoError(t, err)

	var told resource.RevokedCertificate
	require.NoError(t, c.try(http.MethodPost, "/api/v1/revocations", resource.RevokeCertificate{AgentID: a.id, Certificate: "www", Reason: "keyCompromise"}, &told))
	assert.Equal(t, "builtin", told.By)
	await(t, 2*time.Minute, "the certificate is replaced", func() error {
		now, err := a.certificate("www")
		if err == nil && now.Serial == lost.Serial {
			err = fmt.Errorf("%s is still in service", now.Serial)
		}
		return err
	})
	now := a.awaitSettled(2 * time.Minute).Certificates[0]
	a.awaitReported(c, "www", now.Serial, 2*time.Minute)

	var der []byte
	await(t, 2*time.Minute, "the list names the revoked certificate", func() error {
		var list *x509.RevocationList
		var err error
		if der, list, err = c.list(); err != nil {
			return err
		}
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Text(16) == lost.Serial && entry.ReasonCode == pki.ReasonKeyCompromise {
				return nil
			}
		}
		return fmt.Errorf("list %d has %d entries", list.Number, len(list.RevokedCertificateEntries))
	})
	c.killed()
	again, _, err := c.list()
	require.NoError(t, err)
	assert.Equal(t, der, again, "the same octets after a restart")

	fresh, err := os.ReadFile(target)
	require.NoError(t, err)
	openSSLChecks(t, filepath.Join(c.data, "root.pem"), again, old, fresh)
}

// openSSLChecks has OpenSSL verify two chains, leaf first, with a list that is about
// the first one.
func openSSLChecks(t *testing.T, root string, list, revoked, good []byte) {
	t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Log("openssl is not installed; the list was read by crypto/x509 alone")
		return
	}
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, text, 0o600))
		return path
	}
	run := func(args ...string) (string, error) {
		text, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput()
		return string(text), err
	}
	pem := filepath.Join(dir, "list.pem")
	chain, err := pki.ParseChainPEM(good)
	require.NoError(t, err)
	issuing := file("issuing.pem", pki.EncodeChainPEM(chain[1:]))
	text, err := run("crl", "-inform", "DER", "-in", file("list.crl", list), "-CAfile", issuing, "-verify", "-out", pem)
	require.NoError(t, err, text)
	assert.Contains(t, text, "verify OK")
	verify := []string{"verify", "-CAfile", root, "-untrusted", issuing, "-CRLfile", pem, "-crl_check"}
	text, err = run(append(verify, file("good.pem", good))...)
	require.NoError(t, err, text)
	text, err = run(append(verify, file("revoked.pem", revoked))...)
	require.Error(t, err, text)
	assert.Contains(t, text, "certificate revoked")
}
