package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What this host lacks is said, with its place, and stops nothing.
func TestWhatTheHostLacksIsAWarning(t *testing.T) {
	dir := t.TempDir()
	path, missing := filepath.Join(dir, "agent.yaml"), filepath.Join(dir, "missing")
	program, err := os.Executable()
	require.NoError(t, err)
	text := fmt.Sprintf(`issuers:
  one: {acme: {directory: https://one.example/directory, terms_agreed: true, http_01: {webroot: %[2]q}}}
  two: {acme: {directory: https://two.example/directory, terms_agreed: true, http_01: {webroot: %[3]q}}}
  dns: {acme: {directory: https://two.example/directory, terms_agreed: true, challenge: dns-01, dns_01: {exec: {command: [%[1]q]}}}}
certificates:
  - name: www
    names: [www.example.com]
    deployments:
      - files: {fullchain: %[4]q}
        check: [no-such-program-of-certctl, -t]
        reload: [%[1]q]
        verify: {command: [%[3]q]}
      - files: {fullchain: %[5]q}
        check: [%[3]q]
`, missing, dir, program, filepath.Join(dir, "a.pem"), filepath.Join(dir, "b.pem"))
	want := []string{
		"issuers.dns.acme.dns_01.exec.command: ", "issuers.two.acme.http_01.webroot: " + program + " is not a directory",
		"certificates[0].deployments[0].check: ", "certificates[0].deployments[0].reload: ",
	}
	if runtime.GOOS != "windows" {
		text = strings.Replace(text, "files: {", "files: {owner: no-such-user-of-certctl, group: no-such-group-of-certctl, ", 1)
		want = append(want, "certificates[0].deployments[0].files.owner: ", "certificates[0].deployments[0].files.group: ")
	}
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	var out, errs bytes.Buffer
	require.Zero(t, execute([]string{"check-config", "--config", path}, &out, &errs), errs.String())
	assert.Equal(t, path+" is good\n", out.String())
	said := strings.Split(strings.TrimSpace(errs.String()), "\n")
	// Whatever the tests themselves are run with is no setting of the agent's.
	said = slices.DeleteFunc(said, func(line string) bool { return strings.HasPrefix(line, "warning: environment ") })
	assert.Len(t, said, len(want), errs.String())
	for _, one := range want {
		assert.Contains(t, errs.String(), one)
	}
	for _, line := range said {
		assert.Contains(t, line, "warning: "+path+":", "with its place")
		assert.Contains(t, line, "; ", "and the mend")
	}
}
