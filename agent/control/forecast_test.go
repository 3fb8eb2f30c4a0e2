package control

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/renewal"
)

func forecast() *renewal.Forecast {
	return &renewal.Forecast{
		From: noon, Until: noon.Add(90 * day),
		First: &renewal.Expiry{Certificate: "mail", At: noon.Add(40 * day), Why: "its issuer le cannot be reached\x1b[2J"},
		Certificates: []renewal.Prospect{
			{Name: "api", Issuer: "le", SafeUntil: noon.Add(50 * day), RenewedAt: noon.Add(20 * day), Renewals: 2},
			{
				Name: "mail", Issuer: "le", SafeUntil: noon.Add(40 * day), Failures: 30, ExpiredAt: noon.Add(40 * day), ExpiredFor: 50 * 86400,
				AttentionAt: noon.Add(30 * day), Attention: "the last attempts have all failed",
			},
			{Name: "new", Issuer: "le", UnservedNow: "nginx", Unserved: "nginx"},
			{Name: "soon", Issuer: "le", UnservedNow: "nginx", RenewedAt: noon.Add(20 * day), Renewals: 2},
		},
		Days: []renewal.Day{{Date: "2026-12-14", Renewed: 1, Failures: 3}, {Date: "2027-01-03", Attention: 1, Expired: 1}},
	}
}

func TestRenderForecast(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, RenderForecast(&out, forecast()))
	assert.Equal(t, `EXPIRED: the first expired certificate would be served from 2027-01-03 12:00 UTC on (in 40 days): mail
Why: its issuer le cannot be reached [2J

DAY         RENEWED  FAILED ATTEMPTS  NEED ATTENTION  EXPIRE
2026-12-14  1        3                0               0
2027-01-03  0        0                1               1

CERTIFICATE  ISSUER  SAFE UNTIL  FIRST RENEWED  RENEWALS  FAILED ATTEMPTS  OUTCOME
mail         le      2027-01-03  -              0         30               EXPIRED from 2027-01-03 on, for 50 days; asks for a person on 2026-12-24: the last attempts have all failed
new          le      NOT SAFE    -              0         0                NOT IN SERVICE at the end: nginx
soon         le      NOT SAFE    2026-12-14     2         0                not in service now: nginx
api          le      2027-01-13  2026-12-14     2         0                in service throughout
`, out.String())

	for want, change := range map[string]func(*renewal.Forecast){
		"nothing expires until 2027-02-22 12:00 UTC (90 days), and everything is in service then\n": func(f *renewal.Forecast) {
			f.First, f.Certificates = nil, f.Certificates[:1]
		},
		"ATTENTION: nothing expires until 2027-02-22 12:00 UTC, but not everything is in service then\n": func(f *renewal.Forecast) {
			f.First, f.Certificates = nil, f.Certificates[2:3]
		},
		"no certificates are managed on this host\n": func(f *renewal.Forecast) { f.First, f.Certificates, f.Days = nil, nil, nil },
	} {
		f := forecast()
		change(f)
		out.Reset()
		require.NoError(t, RenderForecast(&out, f))
		assert.True(t, strings.HasPrefix(out.String(), want), out.String())
		assert.Equal(t, strings.HasPrefix(want, "no"), f.Well())
	}

	short := forecast()
	short.Shortages = []renewal.Shortage{
		{Limit: "issuers.le.limits.orders_per_hour", Now: 100, Certificates: 2100, First: renewal.Expiry{Certificate: "mail", At: short.First.At}},
		{Limit: "renewal.concurrency", Now: 1, Certificates: 1, First: renewal.Expiry{Certificate: "api", At: short.First.At.Add(day)}},
	}
	short.Raises = []renewal.Raise{{Limit: "issuers.le.limits.orders_per_hour", From: 100, To: 400}, {Limit: "renewal.concurrency", From: 1, To: 2}}
	out.Reset()
	require.NoError(t, RenderForecast(&out, short))
	assert.Contains(t, out.String(), `
LIMIT: 2100 certificates expire waiting for a turn (issuers.le.limits.orders_per_hour is 100), the first from 2027-01-03 12:00 UTC on: mail
LIMIT: 1 certificate expires waiting for a turn (renewal.concurrency is 1), the first from 2027-01-04 12:00 UTC on: api
Mend: raise issuers.le.limits.orders_per_hour from 100 to 400 and renewal.concurrency from 1 to 2, with which nothing expires waiting`)
	short.StillShort = 15
	out.Reset()
	require.NoError(t, RenderForecast(&out, short))
	assert.Contains(t, out.String(), "from 1 to 2, with which 15 still expire waiting (nothing is enough for all of these); or renew before")
	short.Raises = nil
	out.Reset()
	require.NoError(t, RenderForecast(&out, short))
	assert.Contains(t, out.String(), "\nMend: no limit that can be configured is enough; renew before it comes to that (certctl-agent renew NAME)")

	many := forecast()
	many.Days = nil
	for i := range 60 {
		many.Days = append(many.Days, renewal.Day{Date: noon.Add(time.Duration(i) * day).Format(time.DateOnly), Renewed: 2, Failures: 1})
	}
	out.Reset()
	require.NoError(t, RenderForecast(&out, many))
	assert.Contains(t, out.String(), "MONTH    RENEWED  FAILED ATTEMPTS  NEED ATTENTION  EXPIRE\n2026-11  14       7                0               0\n2026-12  62       31               0               0\n")
}
