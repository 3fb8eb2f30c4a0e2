package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/issuers/issuerstest"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/served"
)

// check-config reads the files that issuers name, says where in the configuration
// each of the wrong ones is, and shows no secret in any of its forms.
func TestCheckConfigLooksAtIssuers(t *testing.T) {
	const canary = "CANARY-5d0c-NEVER-SHOWN"
	file := filepath.Join(t.TempDir(), "coordinator.yaml")
	check := func(args ...string) (status int, text string) {
		var out, errs bytes.Buffer
		status = execute(append([]string{"check-config", "--config", file}, args...), &out, &errs)
		assert.NotContains(t, out.String()+errs.String(), canary)
		return status, out.String() + errs.String()
	}
	for _, kind := range served.Kinds() {
		fake := issuerstest.Serve(t, kind, fakeca.Config{})
		for name, secret := range fake.Secrets() {
			if name != "client_key" { // which has to be one
				require.NoError(t, os.WriteFile(secret, []byte(canary), 0o600))
			}
		}
		good := "issuers:\n  one:\n" + fake.Settings("    ")
		require.NoError(t, os.WriteFile(file, []byte(good), 0o600))
		for _, form := range [][]string{nil, {"--effective"}, {"--explain"}} {
			status, text := check(form...)
			assert.Zero(t, status, text)
		}
		fake.Set("ca_file", "'"+filepath.Join(t.TempDir(), "absent")+"'")
		require.NoError(t, os.WriteFile(file, []byte("issuers:\n  one:\n"+fake.Settings("    ")+"    chain_file: /\n"), 0o600))
		status, text := check()
		assert.Equal(t, 1, status)
		assert.Contains(t, text, file+":")
		assert.Contains(t, text, ": issuers.one.chain_file: ")
		require.NoError(t, os.WriteFile(file, []byte("issuers:\n  one:\n"+fake.Settings("    ")), 0o600))
		status, text = check()
		assert.Equal(t, 1, status)
		assert.Regexp(t, file+`:\d+:\d+: issuers\.one\.`+kind+`\.ca_file: open `, text)
	}
}
