package api_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

const day = 24 * time.Hour

func TestCertificateFilters(t *testing.T) {
	w := start(t)
	silent := w.Agent("silent", "db1.example.com", map[string]string{"env": "test"})
	silent.Report("db", apitest.Valid(w.Now(), 40*day, "db.example.com"))
	silent.Report("over", apitest.Valid(w.Now(), time.Minute, "over.example.com"))
	w.Sleep(time.Hour)
	now := w.Now()
	a := w.Agent("a", "web1.example.com", map[string]string{"env": "prod"})
	a.Report("www", apitest.Valid(now, 10*day, "www.example.com", "192.0.2.7"))
	renewing := apitest.Valid(now, 20*day, "api.example.com")
	renewing.State, renewing.Issuer = wire.StateRenewing, "builtin"
	a.Report("api", renewing)
	a.Report("first", wire.Summary{State: wire.StatePending, Names: pki.MustParseNames("first.example.com"), Issuer: "builtin"})
	failing := apitest.Valid(now, 5*day, "mail.example.com")
	failing.State, failing.Attempt, failing.LastError = wire.StateFailed, 3, "refused"
	a.Report("mail", failing)
	dbSerial, dbPrint := apitest.Valid(now, 0, "db.example.com").Serial, apitest.Valid(now, 0, "db.example.com").Fingerprint

	for query, want := range map[string]string{
		"":                                    "a/api a/first a/mail a/www silent/db silent/over",
		"agent=silent":                        "silent/db silent/over",
		"label=env%3Dprod":                    "a/api a/first a/mail a/www",
		"label=env%3Dprod&agent=silent":       "",
		"name=www.example.com":                "a/www",
		"name=WWW.Example.Com.":               "a/www",
		"name=192.0.2.7":                      "a/www",
		"name=example.com":                    "",
		"q=EXAMPLE":                           "a/api a/first a/mail a/www silent/db silent/over",
		"q=mai":                               "a/mail",
		"q=192.0":                             "a/www",
		"issuer=builtin":                      "a/api a/first",
		"state=failed":                        "a/mail",
		"state=pending&issuer=builtin":        "a/first",
		"health=ok":                           "a/www",
		"health=renewing":                     "a/api",
		"health=unknown":                      "silent/db",
		"health=at_risk":                      "a/mail",
		"health=unserved":                     "a/first",
		"health=expired":                      "silent/over",
		"health=expired&agent=a":              "",
		"health=at_risk%2Cunserved%2Cexpired": "a/first a/mail silent/over",
		"expires_before=" + stamp(now.Add(15*day)): "silent/over a/mail a/www", // soonest first
		"expires_before=" + stamp(now):             "silent/over",
		"sort=id":                                  "a/api a/first a/mail a/www silent/db silent/over",
		"sort=-id":                                 "silent/over silent/db a/www a/mail a/first a/api",
		"sort=not_after":                           "silent/over a/mail a/www a/api silent/db", // what is not obtained does not expire
		"sort=-not_after":                          "silent/db a/api a/www a/mail silent/over",
		"sort=-not_after&expires_before=" + stamp(now.Add(15*day)): "a/www a/mail silent/over",
		"sort=id&expires_before=" + stamp(now.Add(15*day)):         "a/mail a/www silent/over",
		"sort=not_after&agent=a&q=EXAMPLE":                         "a/mail a/www a/api",
		"sort=-not_after&health=ok,unknown":                        "silent/db a/www",
		"expires_before=" + stamp(now.Add(15*day)) + "&health=ok":  "a/www",
		"serial=" + dbSerial:                                       "silent/db",
		"serial=" + url.QueryEscape(colons(dbSerial)):              "silent/db",
		"fingerprint=" + strings.ToUpper(dbPrint):                  "silent/db",
		"fingerprint=" + url.QueryEscape(colons(dbPrint)):          "silent/db",
		"fingerprint=" + dbPrint + "&agent=a":                      "",
		"fingerprint=ab":                                           "",
	} {
		items, _ := all[resource.Certificate](w, "/api/v1/certificates?"+query, "500")
		assert.Equal(t, strings.Fields(want), idsOf(items, certificateID), query)
		one, _ := all[resource.Certificate](w, "/api/v1/certificates?"+query, "1")
		assert.Equal(t, strings.Fields(want), idsOf(one, certificateID), "%s, one at a time", query)
	}
	page := get[resource.Page[resource.Certificate]](w, "/api/v1/certificates?limit=1")
	require.NotNil(t, page.Total)
	assert.Equal(t, 6, *page.Total)
	for _, filter := range []string{"agent=a", "health=ok", "health=expired", "label=env%3Dprod", "q=x", "expires_before=" + stamp(now)} {
		assert.Nil(t, get[resource.Page[resource.Certificate]](w, "/api/v1/certificates?"+filter).Total, filter)
	}
}

// A certificate that has not expired is listed as expired where an older one, which has,
// is served in its place; whatever is paged, and as long as it is so.
func TestExpiredByWhatIsServed(t *testing.T) {
	w := start(t)
	now := w.Now()
	agent := w.Agent("a", "web1.example.com", nil)
	agent.Report("later", apitest.Valid(now, 40*day, "later.example.com"))
	behind := apitest.Valid(now, 30*day, "behind.example.com")
	behind.SafeUntil = now.Add(2 * time.Hour)
	agent.Report("behind", behind)
	agent.Report("over", apitest.Valid(now, time.Hour, "over.example.com"))
	expired := func(limit string) []string {
		items, _ := all[resource.Certificate](w, "/api/v1/certificates?health=expired", limit)
		return idsOf(items, certificateID)
	}
	assert.Empty(t, expired("500"))
	w.Sleep(time.Hour)
	assert.Equal(t, []string{"a/over"}, expired("500"))
	w.Sleep(time.Hour)
	for _, limit := range []string{"1", "500"} {
		assert.Equal(t, []string{"a/over", "a/behind"}, expired(limit))
	}
	assert.Equal(t, 2, get[resource.AgentDetail](w, "/api/v1/agents/a").CertificateHealth.Expired, "as many as are counted")
	items, _ := all[resource.Certificate](w, "/api/v1/certificates?health=expired&sort=-id", "1")
	assert.Equal(t, []string{"a/over", "a/behind"}, idsOf(items, certificateID))
	behind.SafeUntil = behind.NotAfter
	agent.Report("behind", behind)
	assert.Equal(t, []string{"a/over"}, expired("500"))
}

func colons(hex string) string {
	var pairs []string
	for i := 0; i+1 < len(hex); i += 2 {
		pairs = append(pairs, hex[i:i+2])
	}
	return strings.Join(pairs, ":")
}

func TestCertificateFacts(t *testing.T) {
	w := start(t)
	agent := w.Agent("agent1", "web1.example.com", nil)
	now := w.Now().UTC().Truncate(time.Second)
	summary := apitest.Valid(now, 10*day, "www.example.com", "192.0.2.7")
	summary.Attempt, summary.LastError, summary.LastErrorAt, summary.NextAttempt = 1, "no route", now, now.Add(time.Minute)
	summary.Deployments[0].Detail = "reloaded"
	for _, name := range []string{"www", "a b", "50%", "a/b", "ü?#", ".."} {
		agent.Report(name, summary)
		shown := get[resource.Certificate](w, "/api/v1/certificates/agent1/"+strings.ReplaceAll(url.PathEscape(name), ".", "%2E"))
		assert.Equal(t, resource.Certificate{
			AgentID: "agent1", Hostname: "web1.example.com", Name: name,
			Health: resource.HealthAtRisk, HealthReason: "in service; its renewal fails and is tried again: no route", State: "valid",
			Names: []string{"www.example.com", "192.0.2.7"}, Issuer: "letsencrypt", IssuerKind: "acme", IssuerDN: "CN=Example CA",
			Serial: summary.Serial, Fingerprint: summary.Fingerprint, KeyAlgorithm: "ecdsa-p256",
			NotBefore: summary.NotBefore, NotAfter: summary.NotAfter, RenewAt: summary.RenewAt, Renewals: 1,
			Deployments: []resource.Deployment{{ID: "nginx", State: "verified", Fingerprint: summary.Fingerprint, At: now, Detail: "reloaded"}},
			Attempt:     1, NextAttempt: now.Add(time.Minute), LastError: "no route", LastErrorAt: now, AgentLastSeen: shown.AgentLastSeen,
		}, shown)
		assert.WithinDuration(t, now, shown.AgentLastSeen, time.Minute)
	}

	// Nothing is left out that is a list, so that programs need no nil checks.
	agent.Report("new", wire.Summary{State: wire.StatePending})
	text := w.ask(http.MethodGet, "/api/v1/certificates/agent1/new", nil).body
	assert.Contains(t, text, `"names":[]`)
	assert.Contains(t, text, `"deployments":[]`)
	assert.NotContains(t, text, "not_after", "a time that is not there is left out")

	p := w.ask(http.MethodGet, "/api/v1/certificates/agent1/none", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
	assert.Equal(t, "the agent has no certificate named none", p.Detail)
	p = w.ask(http.MethodGet, "/api/v1/certificates/agent2/www", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
	assert.Equal(t, "there is no agent with the id agent2", p.Detail)
}

// What is in service as it was configured before is found by the names in it, and
// is not well. An agent of before does not say so, and is believed as before.
func TestACertificateOfAnEarlierConfiguration(t *testing.T) {
	w := start(t)
	agent := w.Agent("a", "web1.example.com", nil)
	row := apitest.Valid(w.Now(), 10*day, "www.example.com")
	agent.Report("www", row)
	require.Equal(t, resource.HealthOK, get[resource.Certificate](w, "/api/v1/certificates/a/www").Health)

	row.Former = true
	agent.Report("www", row)
	shown := get[resource.Certificate](w, "/api/v1/certificates/a/www")
	assert.True(t, shown.FormerConfiguration)
	assert.Equal(t, resource.HealthAtRisk, shown.Health)
	for query, want := range map[string]string{"name=www.example.com": "a/www", "health=at_risk": "a/www", "health=ok%2Crenewing": ""} {
		items, _ := all[resource.Certificate](w, "/api/v1/certificates?"+query, "500")
		assert.Equal(t, strings.Fields(want), idsOf(items, certificateID), query)
	}
}

// Health is of the moment of the answer: nothing has to happen for it to change.
func TestHealthFollowsTheClock(t *testing.T) {
	w := start(t)
	w.Agent("agent1", "web1.example.com", nil).Report("www", apitest.Valid(w.Now(), time.Hour, "www.example.com"))
	health := func() resource.Health {
		return get[resource.Certificate](w, "/api/v1/certificates/agent1/www").Health
	}
	assert.Equal(t, resource.HealthOK, health())
	w.Sleep(10 * time.Minute)
	assert.Equal(t, resource.HealthUnknown, health())
	assert.Equal(t, 1, get[resource.Status](w, "/api/v1/status").Certificates.Unknown)
	w.Sleep(time.Hour)
	assert.Equal(t, resource.HealthExpired, health())
	assert.Equal(t, 1, get[resource.Status](w, "/api/v1/status").Certificates.Expired)
	assert.Len(t, get[resource.Page[resource.Certificate]](w, "/api/v1/certificates?health=expired").Items, 1)
}
