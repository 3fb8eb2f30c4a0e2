package control

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/wire"
)

func TestOneCertificate(t *testing.T) {
	c := &sample(noon).Certificates[0]
	c.SafeUntil = c.NotAfter
	var out bytes.Buffer
	require.NoError(t, RenderCertificate(&out, c, noon))
	assert.Equal(t, `certificate: api
names:       x.example.com
state:       valid
issuer:      le (acme)
fingerprint: f1
valid from:  2026-10-05 12:00 UTC
expires:     2027-01-03 00:00 UTC (in 39 days)
renews:      in 10 days
safe until:  2027-01-03 00:00 UTC
deployed:    1: verified
`, out.String())

	c.Deployments[0] = wire.DeploymentSummary{ID: "1", State: wire.DeploymentFailed, Detail: "refused\x1b[2J"}
	c.LastError, c.LastErrorAt, c.Attempt, c.NeedsAttention = "no answer", noon, 3, "see to it"
	c.SafeUntil, c.NextAttempt = wire.Summary{}.SafeUntil, noon.Add(day)
	out.Reset()
	require.NoError(t, RenderCertificate(&out, c, noon))
	for _, text := range []string{"NOT SAFE", "deployed:    1: failed refused [2J\n", "last error:  no answer (2026-11-24 12:00 UTC, attempt 3)\n", "ATTENTION:   see to it\n"} {
		assert.Contains(t, out.String(), text)
	}
}
