package api_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

const certificatesList = "/api/v1/certificates"

// with sends a request with header fields, each a name and its lines.
func (w *world) with(method, path string, fields ...[]string) answer {
	w.t.Helper()
	request, err := http.NewRequest(method, w.URL+path, nil)
	require.NoError(w.t, err)
	request.Header.Set("Authorization", "Bearer "+w.token)
	request.Header.Set("Accept-Encoding", "identity") // else the client asks for gzip by itself
	for _, field := range fields {
		request.Header[field[0]] = field[1:]
	}
	return w.send(request)
}

func noneMatch(lines ...string) []string { return append([]string{"If-None-Match"}, lines...) }

// tag is the tag of an answer, which has to be a good one.
func (w *world) tag(path string) string {
	w.t.Helper()
	answer := w.with(http.MethodGet, path)
	require.Equal(w.t, http.StatusOK, answer.StatusCode, answer.body)
	tag := answer.Header.Get("ETag")
	require.Regexp(w.t, `^"[A-Za-z0-9_-]{32}"$`, tag, "a strong tag")
	return tag
}

// unchanged asks with a tag, and says whether the answer is that of the tag.
func (w *world) unchanged(path, tag string) bool {
	w.t.Helper()
	answer := w.with(http.MethodGet, path, noneMatch(tag))
	if answer.StatusCode == http.StatusNotModified {
		require.Equal(w.t, tag, answer.Header.Get("ETag"))
		return true
	}
	require.Equal(w.t, http.StatusOK, answer.StatusCode, answer.body)
	require.NotEqual(w.t, tag, answer.Header.Get("ETag"))
	return false
}

func populated(t *testing.T) (*world, *apitest.Agent) {
	w := start(t)
	agent := w.Agent("agent1", "web1", map[string]string{"env": "prod"})
	agent.Report("www", apitest.Valid(w.Now(), 60*day, "www.example.com"))
	return w, agent
}

func TestUnchangedAnswers(t *testing.T) {
	w, _ := populated(t)
	whole := w.with(http.MethodGet, certificatesList)
	require.Equal(t, http.StatusOK, whole.StatusCode)
	tag := whole.Header.Get("ETag")
	assert.Equal(t, "private, no-cache", whole.Header.Get("Cache-Control"))
	assert.Equal(t, "Authorization, Accept-Encoding", whole.Header.Get("Vary"))
	assert.Equal(t, "application/json", whole.Header.Get("Content-Type"))
	assert.EqualValues(t, len(whole.body), whole.ContentLength)

	for _, method := range []string{http.MethodGet, http.MethodHead} {
		answer := w.with(method, certificatesList, noneMatch(tag))
		assert.Equal(t, http.StatusNotModified, answer.StatusCode)
		assert.Empty(t, answer.body)
		for _, same := range []string{"ETag", "Cache-Control", "Vary", "X-Certctl-Servers", "X-Content-Type-Options"} {
			assert.Equal(t, whole.Header.Get(same), answer.Header.Get(same), same)
		}
		assert.NotEmpty(t, answer.Header.Get("Date"))
		assert.NotEmpty(t, answer.Header.Get("X-Certctl-Index"))
		assert.NotEmpty(t, answer.Header.Get("X-Request-Id"))
		for _, gone := range []string{"Content-Type", "Content-Length", "Content-Encoding", "Last-Modified"} {
			assert.NotContains(t, answer.Header, gone)
		}
		answer = w.with(method, certificatesList, noneMatch(`"other"`))
		assert.Equal(t, http.StatusOK, answer.StatusCode)
		assert.Equal(t, tag, answer.Header.Get("ETag"))
		assert.EqualValues(t, len(whole.body), answer.ContentLength)
	}
	for name, c := range map[string]struct {
		fields [][]string
		status int
	}{
		"weak":                          {[][]string{noneMatch("W/" + tag)}, 304},
		"anything":                      {[][]string{noneMatch("*")}, 304},
		"a list":                        {[][]string{noneMatch(`"a", W/"b" ,` + tag)}, 304},
		"several lines":                 {[][]string{noneMatch(`"a"`, `"b", "c"`, tag)}, 304},
		"others":                        {[][]string{noneMatch(`"a"`, `"b", "c"`)}, 200},
		"altered":                       {[][]string{noneMatch(`"B` + tag[2:])}, 200},
		"nonsense":                      {[][]string{noneMatch(`hello`)}, 200},
		"a date alone":                  {[][]string{{"If-Modified-Since", "Fri, 31 Dec 2100 23:59:59 GMT"}}, 200},
		"a date besides":                {[][]string{noneMatch(`"a"`), {"If-Modified-Since", "Fri, 31 Dec 2100 23:59:59 GMT"}}, 200},
		"a date that has passed":        {[][]string{noneMatch(tag), {"If-Modified-Since", "Fri, 31 Dec 1999 23:59:59 GMT"}}, 304},
		"unless changed since a date":   {[][]string{{"If-Unmodified-Since", "Fri, 31 Dec 1999 23:59:59 GMT"}}, 200},
		"If-Match":                      {[][]string{{"If-Match", tag}}, 200},
		"If-Match and If-None-Match":    {[][]string{{"If-Match", tag}, noneMatch(tag)}, 304},
		"If-Match, anything":            {[][]string{{"If-Match", "*"}, noneMatch(tag)}, 304},
		"If-Match and another":          {[][]string{{"If-Match", tag}, noneMatch(`"a"`)}, 200},
		"a range of what has no ranges": {[][]string{{"Range", "bytes=0-1"}, {"If-Range", tag}}, 200},
	} {
		answer := w.with(http.MethodGet, certificatesList, c.fields...)
		assert.Equal(t, c.status, answer.StatusCode, name)
		assert.Equal(t, tag, answer.Header.Get("ETag"), name)
	}
	for name, value := range map[string]string{"another": `"a"`, "weak": "W/" + tag, "nonsense": "a"} {
		answer := w.with(http.MethodGet, certificatesList, []string{"If-Match", value}, noneMatch(tag))
		p := answer.problem(t, http.StatusPreconditionFailed, wire.CodeConflict)
		assert.Equal(t, "If-Match", p.Field, name)
		assert.Empty(t, answer.Header.Get("ETag"), name)
	}
}

// A precondition counts where the answer would be a good one without it (RFC 9110,
// section 13.2.1), and no other answer has a tag, or may be kept.
func TestErrorsHaveNoTag(t *testing.T) {
	w, _ := populated(t)
	tag := w.tag(certificatesList)
	viewer := w.as(w.Token(fleet.RoleViewer, 0).Reveal())
	for name, c := range map[string]struct {
		by     *world
		path   string
		status int
	}{
		"a bad limit":          {w, certificatesList + "?limit=0", 400},
		"an unknown parameter": {w, certificatesList + "?colour=red", 400},
		"a bad cursor":         {w, certificatesList + "?cursor=AAAA", 400},
		"a bad label":          {w, certificatesList + "?label=x", 400},
		"a bad index":          {w, certificatesList + "?min_index=x", 400},
		"no such agent":        {w, certificatesList + "?agent=none", 404},
		"no such assignment":   {w, "/api/v1/assignments/none", 404},
		"no token":             {w.as(""), certificatesList, 401},
		"a token without":      {viewer, "/api/v1/tokens", 403},
		"no operation":         {w, certificatesList + "/", 404},
	} {
		for _, field := range [][]string{{"X-None", ""}, noneMatch("*"), noneMatch(tag), {"If-Match", "*"}, {"If-Match", `"a"`}} {
			answer := c.by.with(http.MethodGet, c.path, field)
			assert.Equal(t, c.status, answer.StatusCode, "%s, %s", name, field)
			assert.NotContains(t, answer.Header, "Etag", name)
			assert.Equal(t, "no-store", answer.Header.Get("Cache-Control"), name)
		}
	}
	w.Remove(true)
	answer := w.with(http.MethodGet, certificatesList, noneMatch(tag))
	answer.problem(t, http.StatusServiceUnavailable, wire.CodeNotMember)
	assert.NotContains(t, answer.Header, "Etag")
}

// What is shown of a fleet has another tag when it is another one, and the same one
// while it is the same.
func TestWhatChangesATag(t *testing.T) {
	w, agent := populated(t)
	other := w.Agent("agent2", "web2", nil)
	agents := "/api/v1/agents"
	tags := map[string]string{}
	look := func() {
		for _, path := range []string{certificatesList, agents} {
			tags[path] = w.tag(path)
		}
	}
	changed := func(what string, want bool) {
		t.Helper()
		for path, tag := range tags {
			assert.Equal(t, !want, w.unchanged(path, tag), "%s: %s", path, what)
		}
		look()
	}
	look()
	changed("nothing", false)
	w.KeepInTouch()
	changed("heartbeats", false)
	w.Sleep(2 * apitest.SyncInterval)
	changed("two syncs were missed", false)
	w.KeepInTouch()
	changed("and made up for", false)
	w.Token(fleet.RoleViewer, 0)
	changed("something else", false)

	agent.Report("www", apitest.Valid(w.Now(), 50*day, "www.example.com"))
	changed("a report", true)
	w.Sleep(4 * apitest.SyncInterval)
	changed("both are cut off", true)
	w.Sleep(day)
	changed("for long", false)
	require.NoError(t, w.Do(fleet.TouchAgents{Seen: []fleet.Seen{{Agent: other.ID(), At: w.Now()}}}).Err())
	changed("one is back", true)
	w.KeepInTouch()
	changed("both are", true)
	require.NoError(t, w.Do(fleet.RetireAgent{AgentID: other.ID()}).Err())
	changed("one is retired", true)

	// Nothing happens but that time goes on, until a certificate expires.
	agent.Report("short", apitest.Valid(w.Now(), time.Hour, "short.example.com"))
	look()
	const expired = certificatesList + "?health=expired"
	ends, tagOfExpired := get[resource.Page[resource.Certificate]](w, certificatesList).Items[0].NotAfter, w.tag(expired)
	for _, c := range []struct {
		left    time.Duration
		changed bool
	}{{45 * time.Minute, false}, {15 * time.Minute, true}, {time.Second, false}, {0, true}, {-day, false}} {
		w.Sleep(ends.Add(-c.left).Sub(w.Now()))
		w.KeepInTouch()
		assert.Equal(t, !c.changed, w.unchanged(certificatesList, tags[certificatesList]), "%v are left", c.left)
		assert.Equal(t, !c.changed, w.unchanged(expired, tagOfExpired), "%v are left", c.left)
		tagOfExpired = w.tag(expired)
		health := get[resource.Page[resource.Certificate]](w, certificatesList).Items[0].Health
		assert.Equal(t, c.left <= 0, health == resource.HealthExpired)
		look()
		assert.True(t, w.unchanged(certificatesList, tags[certificatesList]))
	}
}

func TestTagsFollowTheQuestion(t *testing.T) {
	w, _ := populated(t)
	w.Agent("agent2", "web2", nil)
	tag := w.tag(certificatesList + "?limit=10&issuer=letsencrypt")
	assert.Equal(t, tag, w.tag(certificatesList+"?issuer=letsencrypt&limit=10"), "the order of the parameters says nothing")
	assert.Equal(t, tag, w.tag(certificatesList+"?min_index=1&issuer=letsencrypt&consistent&limit=10"), "nor does how new it has to be")
	assert.Equal(t, tag, w.as(w.Token(fleet.RoleViewer, 0).Reveal()).tag(certificatesList+"?issuer=letsencrypt&limit=10"), "all are told the same")
	seen := map[string]string{tag: ""}
	for _, path := range []string{certificatesList, certificatesList + "?limit=10", certificatesList + "?limit=11", "/api/v1/agents", "/api/v1/tokens", "/api/v1/agents/agent1/commands", "/api/v1/agents/agent2/commands"} {
		tag := w.tag(path)
		assert.NotContains(t, seen, tag, "%s and %s", path, seen[tag])
		seen[tag] = path
		assert.False(t, w.unchanged(path, w.tag(certificatesList+"?limit=12")))
	}
}

// Facts of the journal, and what is none of the question's.
func TestTagsOfTheAuditList(t *testing.T) {
	w, agent := populated(t)
	const audit, all = "/api/v1/audit", "/api/v1/audit?scope=all"
	agent.Event(wire.EventStarted, "", "")
	w.events(all+"&kind=agent.started", 1) // and so all facts of before
	tag, tagOfAll := w.tag(audit), w.tag(all)
	w.KeepInTouch()
	assert.True(t, w.unchanged(audit, tag), "heartbeats are no facts")
	assert.True(t, w.unchanged(all, tagOfAll))
	agent.Event(wire.EventStarted, "", "")
	w.events(all+"&kind=agent.started", 2)
	assert.True(t, w.unchanged(audit, tag), "what an agent reports is no act of people")
	assert.False(t, w.unchanged(all, tagOfAll))
	w.Token(fleet.RoleViewer, 0)
	require.Eventually(t, func() bool { return !w.unchanged(audit, tag) }, 60*time.Second, time.Millisecond)
}

// An answer of any size is whole, or compressed and whole, and each has its own tag.
func TestLargeAndCompressedAnswers(t *testing.T) {
	w := start(t)
	w.Fleet(600)
	w.KeepInTouch()
	const path = certificatesList + "?limit=500"
	plain := w.with(http.MethodGet, path)
	assert.Greater(t, len(plain.body), 256<<10)
	assert.Equal(t, strconv.Itoa(len(plain.body)), plain.Header.Get("Content-Length"))
	assert.Len(t, decodeText[resource.Page[resource.Certificate]](t, plain.body).Items, 500)
	gzipped := []string{"Accept-Encoding", "gzip"}
	small := w.with(http.MethodGet, path, gzipped)
	assert.Equal(t, "gzip", small.Header.Get("Content-Encoding"))
	assert.Equal(t, strconv.Itoa(len(small.body)), small.Header.Get("Content-Length"))
	assert.Less(t, len(small.body), len(plain.body)/4)
	r, err := gzip.NewReader(bytes.NewReader([]byte(small.body)))
	require.NoError(t, err)
	unzipped, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, plain.body, string(unzipped))

	tag, tagOfSmall := plain.Header.Get("ETag"), small.Header.Get("ETag")
	assert.NotEqual(t, tag, tagOfSmall)
	for _, c := range []struct {
		fields [][]string
		status int
		tag    string
	}{
		{[][]string{noneMatch(tag)}, 304, tag},
		{[][]string{noneMatch(tagOfSmall)}, 200, tag}, // it says that it understands no gzip
		{[][]string{noneMatch(tagOfSmall), gzipped}, 304, tagOfSmall},
		{[][]string{noneMatch(tag), gzipped}, 304, tag}, // what it has is as good
		{[][]string{noneMatch(tagOfSmall, tag), gzipped}, 304, tagOfSmall},
		{[][]string{noneMatch("*"), gzipped}, 304, tagOfSmall},
	} {
		answer := w.with(http.MethodGet, path, c.fields...)
		assert.Equal(t, c.status, answer.StatusCode, "%v", c.fields)
		assert.Equal(t, c.tag, answer.Header.Get("ETag"), "%v", c.fields)
	}
	assert.Empty(t, w.with(http.MethodGet, "/api/v1/assignments", gzipped).Header.Get("Content-Encoding"), "it is not worth it")
	head := w.with(http.MethodHead, path, gzipped)
	assert.Equal(t, small.Header.Get("Content-Length"), head.Header.Get("Content-Length"))
	assert.Equal(t, tagOfSmall, head.Header.Get("ETag"))
}

// Every operation whose document says that it has entity tags has them, and gives the
// same answer for the same tag. TestEveryReadHasATagOrAReason knows which do.
func TestOperationsWithTags(t *testing.T) {
	w, agent := populated(t)
	agent.AtEveryStage()
	w.ask(http.MethodPut, "/api/v1/assignments/role", `{"selector":"*","certificate":{"names":["${hostname}.example.com"]}}`)
	begun := post[resource.Renewals](w, "/api/v1/renewals", map[string]any{"selector": "*", "over_seconds": 3600}, http.StatusAccepted)
	of := map[string]string{
		"/api/v1/agents/{id}/commands": "/api/v1/agents/agent1/commands", "/api/v1/assignments/{name}": "/api/v1/assignments/role",
		"/api/v1/renewals/{id}": "/api/v1/renewals/" + begun.ID, ordersPath + "/{agent}/{id}": orderPath("agent1", fleet.StagePending),
	}
	// A fact comes into the journal a moment after its change.
	require.Eventually(t, func() bool { return w.Journal.Through() >= w.State().Index() }, time.Minute, time.Millisecond)
	tagged := 0
	for path, methods := range decodeText[openAPI](t, w.ask(http.MethodGet, "/openapi.json", nil).body).Paths {
		op, ok := methods["get"]
		if !ok {
			continue
		}
		if asked, ok := of[path]; ok {
			path = asked
		}
		if _, ok := op.Responses["304"]; !ok {
			continue
		}
		tagged++
		require.NotContains(t, path, "{", "say above how %s is asked", op.OperationID)
		whole := w.with(http.MethodGet, path)
		tag := w.tag(path)
		assert.True(t, w.unchanged(path, tag), path)
		assert.Equal(t, whole.body, w.with(http.MethodGet, path, noneMatch(`"other"`)).body, path)
	}
	assert.GreaterOrEqual(t, tagged, 14)
	assert.Empty(t, w.Log.String(), "all of them follow from what they are said to")
}
