package acme

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/settings"
)

// A secret that is too short for FIPS 140-3 would end the program when it is used,
// so that it is refused when the configuration is read.
func TestShortSecretsInFIPSOnlyMode(t *testing.T) {
	const child = "TEST_FIPS_ONLY"
	if os.Getenv(child) == "" {
		assert.False(t, tooShort([]byte("secret")), "anything goes elsewhere")
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		again.Env = append(os.Environ(), "GODEBUG=fips140=only", child+"=1")
		out, err := again.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	require.True(t, fips140.Enforced())
	for name, c := range map[string]struct {
		url, plain string // base64
		refused    bool
	}{
		"short": {"c2VjcmV0", "c2VjcmV0", true},
		"long":  {"MDEyMzQ1Njc4OTAxMjM0NTY3ODk", "MDEyMzQ1Njc4OTAxMjM0NTY3ODk=", false},
	} {
		cfg := Config{EAB: &EAB{KeyID: "k", HMACKey: settings.NewSecret(c.url)}}
		tsig := DNS01RFC2136{Server: "ns", TSIG: &TSIG{Name: "key", Secret: settings.NewSecret(c.plain)}}
		for _, err := range []error{cfg.validate(), tsig.validate()} {
			if c.refused {
				require.ErrorContains(t, err, "less than 112 bits", name)
			} else if err != nil {
				require.NotContains(t, err.Error(), "secret", name)
				require.NotContains(t, err.Error(), "hmac_key", name)
			}
		}
	}
}
