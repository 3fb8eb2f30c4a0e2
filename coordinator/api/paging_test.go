package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// Whatever comes and goes between two pages, what stays is listed once.
func TestPagesAreStable(t *testing.T) {
	w := start(t)
	for i := range 4 {
		agent := w.Agent(fmt.Sprint("b", i), "host", nil)
		agent.Report("www", apitest.Valid(w.Now(), time.Duration(i+2)*day, fmt.Sprintf("www%d.example.com", i)))
		w.Token(fleet.RoleViewer, 0)
		w.Sleep(time.Second)
	}
	agents := get[resource.Page[resource.Agent]](w, "/api/v1/agents?limit=2")
	assert.Equal(t, []string{"b0", "b1"}, idsOf(agents.Items, agentID))
	byExpiry := "/api/v1/certificates?limit=2&expires_before=" + stamp(w.Now().Add(90*day))
	certificates := get[resource.Page[resource.Certificate]](w, byExpiry)
	assert.Equal(t, []string{"b0/www", "b1/www"}, idsOf(certificates.Items, certificateID))
	tokens := get[resource.Page[resource.APIToken]](w, apiTokens+"?limit=2")
	events := w.events("/api/v1/audit?limit=2", 2)
	wantTokens := idsOf(get[resource.Page[resource.APIToken]](w, apiTokens).Items, apiTokenID)[2:]

	// Before the place where the page ended, and after it; the last one shown goes.
	w.Agent("a", "host", nil).Report("www", apitest.Valid(w.Now(), time.Hour, "a.example.com"))
	w.Agent("b11", "host", nil).Report("www", apitest.Valid(w.Now(), 60*day, "b11.example.com"))
	post[resource.AgentDetail](w, "/api/v1/agents/b1/retire", nil, http.StatusOK)
	w.Token(fleet.RoleViewer, 0)

	agents = get[resource.Page[resource.Agent]](w, "/api/v1/agents?limit=10&cursor="+agents.NextCursor)
	assert.Equal(t, []string{"b11", "b2", "b3"}, idsOf(agents.Items, agentID))
	certificates = get[resource.Page[resource.Certificate]](w, byExpiry+"&cursor="+certificates.NextCursor)
	assert.Equal(t, []string{"b2/www", "b3/www"}, idsOf(certificates.Items, certificateID))
	tokens = get[resource.Page[resource.APIToken]](w, apiTokens+"?cursor="+tokens.NextCursor)
	assert.Equal(t, wantTokens, idsOf(tokens.Items, apiTokenID))
	assert.NotEmpty(t, events.NextCursor)
	next := get[resource.Page[resource.Event]](w, "/api/v1/audit?limit=2&cursor="+events.NextCursor)
	assert.Equal(t, events.Items[1].Audit-1, next.Items[0].Audit)
}

func TestPageSizesAndCursors(t *testing.T) {
	w := start(t)
	for i := range 51 {
		w.Token(fleet.RoleViewer, 0)
		if i < 3 {
			w.Agent(fmt.Sprint("agent", i), "host", nil).Report("www", apitest.Valid(w.Now(), time.Hour, "www.example.com"))
		}
	}
	assert.Len(t, get[resource.Page[resource.APIToken]](w, apiTokens).Items, 50, "the default")
	assert.Len(t, get[resource.Page[resource.APIToken]](w, apiTokens+"?limit=500").Items, 52)
	items, pages := all[resource.APIToken](w, apiTokens, "26")
	assert.Len(t, items, 52)
	assert.Equal(t, 2, pages, "a full last page has no next one")

	cursorOfAgents := get[resource.Page[resource.Agent]](w, "/api/v1/agents?limit=1").NextCursor
	assert.NotEmpty(t, cursorOfAgents)
	for list, sorts := range map[string][]string{
		"/api/v1/agents": {"id", "-id", "hostname", "-hostname"}, "/api/v1/certificates": {"id", "-id", "not_after", "-not_after"},
	} {
		for _, sort := range sorts {
			cursor := get[resource.Page[struct{}]](w, list+"?limit=1&sort="+sort).NextCursor
			assert.NotEmpty(t, cursor, sort)
			for _, other := range sorts {
				path := list + "?limit=1&sort=" + other + "&cursor=" + cursor
				if other == sort {
					get[resource.Page[struct{}]](w, path)
					continue
				}
				p := w.ask(http.MethodGet, path, nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
				assert.Equal(t, "cursor", p.Field, "%s: the cursor of %s", path, sort)
			}
		}
		p := w.ask(http.MethodGet, list+"?sort=last_seen", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
		assert.Equal(t, "sort", p.Field)
	}
	cursorOfTokens := get[resource.Page[resource.APIToken]](w, apiTokens+"?limit=1").NextCursor
	lists := []string{"/api/v1/agents", "/api/v1/certificates", enrollmentTokens, apiTokens, "/api/v1/audit"}
	for _, list := range lists {
		for _, limit := range []string{"0", "-1", "501", "ten", "1.5", "99999999999999999999"} {
			p := w.ask(http.MethodGet, list+"?limit="+limit, nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
			assert.Equal(t, "limit", p.Field, list)
		}
		for _, cursor := range []string{"x", "AAAA", "%00", "....", strings.Repeat("A", 2048), strings.Repeat("A", 2049)} {
			p := w.ask(http.MethodGet, list+"?cursor="+cursor, nil).problem(t, http.StatusBadRequest, wire.CodeInvalid)
			assert.Equal(t, "cursor", p.Field, "%s?cursor=%s", list, cursor)
		}
	}
	// A cursor of another list, or of another order of this one.
	for _, path := range []string{
		"/api/v1/audit?cursor=" + cursorOfAgents, "/api/v1/agents?cursor=" + cursorOfTokens,
		"/api/v1/certificates?issuer=letsencrypt&cursor=" + get[resource.Page[resource.Certificate]](w, "/api/v1/certificates?limit=1").NextCursor,
	} {
		assert.Equal(t, "cursor", w.ask(http.MethodGet, path, nil).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field, path)
	}
	assert.Empty(t, w.Log.String(), "what clients do wrong is no error of the coordinator")
}
