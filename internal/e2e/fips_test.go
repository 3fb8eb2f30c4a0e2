//go:build linux

package e2e

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/pki"
)

// Both programs run in the FIPS 140-3 mode of the toolchain, also in the one in
// which everything that is not approved fails, and issue certificates in it: the
// built-in CA of the coordinator, and an ACME authority that knows nothing of it.
func TestFIPSMode(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{buildinfo.FIPSOn, buildinfo.FIPSOnly} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			setting := "GODEBUG=fips140=" + mode
			ca := pebble.Run(t, pebble.Options{})
			web := startWeb(t, "internal.example", "public.example")
			c := startCoordinator(t, setting)
			certificates := []section{
				certificate("internal", "coordinator", "internal.example", deployTo(web, 0)),
				certificate("public", "pebble", "public.example", deployTo(web, 1)),
			}
			for _, key := range []pki.KeyAlgorithm{pki.ECDSAP384, pki.RSA2048, pki.Ed25519} {
				other := certificate(key.String(), "coordinator", "internal.example")
				other["key"] = key
				certificates = append(certificates, other)
			}
			a := newAgent(t, "the agent", section{"issuers": section{"pebble": acmeIssuer(ca)}, "certificates": certificates})
			a.env = append(a.env, setting)
			a.daemon.env = a.env
			a.enroll(c, "internal.example")
			a.startAndAwait()
			internal := awaitInService(t, c, a, web, "internal", "internal.example", "")
			awaitInService(t, c, a, web, "public", "public.example", "")
			a.awaitSettled(2 * time.Minute)
			require.Zero(t, a.call("renew", "internal").status)
			awaitInService(t, c, a, web, "internal", "internal.example", internal)

			build := a.status().Agent.Build
			assert.Equal(t, mode, build.FIPS140)
			assert.NotEmpty(t, build.FIPS140Module)
			told := a.call("status")
			assert.Contains(t, told.stdout, "FIPS 140-3 mode "+mode)
			for _, program := range []string{"certctl-agent", "certctl-coordinator", "certctl"} {
				said := call(t, a.env, program, "version", "--output", "json")
				var info buildinfo.Info
				require.NoError(t, json.Unmarshal([]byte(said.stdout), &info), "%s: %s", program, said.stderr)
				assert.Equal(t, mode, info.FIPS140, program)
				assert.Contains(t, call(t, a.env, program, "version").stdout, "FIPS 140-3 mode "+mode, program)
			}
			a.stop()
			c.stop()
			for _, d := range []*daemon{a.daemon, c.daemon} {
				assert.NotContains(t, d.output.tail(), "FIPS 140-only", "%s uses what is not approved", d.name)
			}
		})
	}
}
