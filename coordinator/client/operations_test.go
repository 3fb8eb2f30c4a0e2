package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/internal/clientgen"
	"github.com/certctl/certctl/shared/wire"
)

// Every operation of the document has a method, which sends what it is given to where
// the document says, as the document says, and gives back what comes.
func TestEveryOperationIsCalledAsTheDocumentSays(t *testing.T) {
	t.Parallel()
	document, err := api.OpenAPI()
	require.NoError(t, err)
	operations, err := clientgen.Read(document)
	require.NoError(t, err)
	require.NotEmpty(t, operations)
	type seen struct {
		method, path, accept, content string
		query                         url.Values
		body                          []byte
	}
	var got *seen
	c := fake(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		got = &seen{r.Method, r.URL.EscapedPath(), r.Header.Get("Accept"), r.Header.Get("Content-Type"), r.URL.Query(), body}
		_, _ = w.Write([]byte("{}"))
	})
	for _, op := range operations {
		t.Run(op.Name, func(t *testing.T) {
			method := reflect.ValueOf(c).MethodByName(op.Name)
			require.True(t, method.IsValid(), "the client has no method for %s", op.ID)
			in := []reflect.Value{reflect.ValueOf(t.Context())}
			want := seen{method: op.Method, path: op.Path, accept: "application/json", query: url.Values{}}
			if len(op.Params) > 0 {
				params := reflect.New(method.Type().In(1)).Elem()
				for i, p := range op.Params {
					text := fill(t, params.FieldByName(p.Name), "a/b "+strconv.Itoa(i))
					if p.InQuery() {
						want.query[p.Parameter] = text
						if p.Setter == "joined" {
							want.query[p.Parameter] = []string{strings.Join(text, ",")}
						}
						continue
					}
					want.path = strings.ReplaceAll(want.path, "{"+p.Parameter+"}", url.PathEscape(text[0]))
				}
				in = append(in, params)
			}
			var out bytes.Buffer
			switch {
			case op.Body != "":
				body := reflect.New(method.Type().In(len(in))).Elem()
				want.content = "application/json"
				if op.Optional {
					body.Set(reflect.New(body.Type().Elem()))
				}
				encoded, err := json.Marshal(body.Interface())
				require.NoError(t, err)
				want.body, in = encoded, append(in, body)
			case op.Streams != "":
				want.content, want.body = op.Streams, []byte("a stream")
				in = append(in, reflect.ValueOf(strings.NewReader("a stream")))
			case op.Accept != "":
				want.accept = op.Accept + ", application/problem+json"
				in = append(in, reflect.ValueOf(&out), reflect.ValueOf(int64(100)))
			}
			got = nil
			answer := method.Call(in)
			if err, _ := answer[len(answer)-1].Interface().(error); err != nil {
				require.NoError(t, err)
			}
			require.NotNil(t, got)
			if got.body = bytes.TrimSpace(got.body); len(got.body) == 0 {
				got.body = nil
			}
			assert.Equal(t, want, *got)
			if op.Accept != "" {
				assert.Equal(t, "{}", out.String())
			} else {
				assert.False(t, answer[0].IsNil(), "no document comes back")
			}
		})
	}
}

// fill sets a parameter to something that is not zero, and says how it is to be sent.
func fill(t *testing.T, field reflect.Value, text string) []string {
	t.Helper()
	switch value := field.Addr().Interface().(type) {
	case *string:
		*value = text
	case *[]string:
		*value = []string{text, "second"}
		return *value
	case *bool:
		*value, text = true, "true"
	case *int:
		*value, text = 7, "7"
	case *uint64:
		*value, text = 18446744073709551615, "18446744073709551615"
	case *time.Time:
		*value, text = time.Date(2026, 3, 1, 12, 0, 0, 500, time.FixedZone("", 3600)), "2026-03-01T11:00:00.0000005Z"
	default:
		require.FailNow(t, "a parameter of an unknown type", "%T", value)
	}
	return []string{text}
}

func TestAPathWithoutAPartIsNotAskedFor(t *testing.T) {
	t.Parallel()
	c := fake(t, func(http.ResponseWriter, *http.Request) { assert.Fail(t, "the coordinator was asked") })
	_, err := c.ShowAgent(t.Context(), client.ShowAgentParams{})
	require.ErrorContains(t, err, "a parameter of the path is empty")
	_, err = c.RenewCertificate(t.Context(), client.RenewCertificateParams{Name: "www"})
	assert.ErrorContains(t, err, "a parameter of the path is empty")
}

func TestLists(t *testing.T) {
	t.Parallel()
	coordinator := apitest.Start(t)
	c := connect(t, client.Config{Servers: []string{coordinator.URL}, Token: coordinator.Admin, Roots: roots(t, coordinator)})
	for range 7 {
		coordinator.Token(fleet.RoleViewer, 0)
	}
	usable := client.ListAPITokensParams{State: "usable", Limit: 3}
	var answer client.Answer
	page, err := c.ListAPITokens(t.Context(), usable, client.Note(&answer))
	require.NoError(t, err)
	require.Len(t, page.Items, 3)
	assert.NotEmpty(t, page.NextCursor)
	assert.Equal(t, coordinator.State().Index(), answer.Index)

	var through []resource.APIToken
	for token, err := range c.AllAPITokens(t.Context(), usable) {
		require.NoError(t, err)
		through = append(through, token)
	}
	assert.Len(t, through, 8)
	assert.Equal(t, page.Items, through[:3])
	usable.Cursor = page.NextCursor
	rest, more, err := client.Collect(t.Context(), c, usable, 0)
	require.NoError(t, err)
	assert.False(t, more)
	assert.Equal(t, through[3:], rest, "a list goes on from where it is told to")
	for limit, want := range map[int]int{0: 8, 1: 1, 7: 7, 8: 8, 9: 8, 1000: 8} {
		items, more, err := client.Collect(t.Context(), c, client.ListAPITokensParams{State: "usable"}, limit)
		require.NoError(t, err)
		assert.Len(t, items, want)
		assert.Equal(t, want < 8, more)
	}

	// Half of it is enough for some.
	for range c.AllAPITokens(t.Context(), client.ListAPITokensParams{Limit: 2}) {
		break
	}
	require.EventuallyWithT(t, func(t *assert.CollectT) { // a fact is in the journal a moment after its change
		events, _, err := client.Collect(context.Background(), c, client.ListAuditParams{Kind: []string{string(fleet.KindAPITokenCreated)}}, 2)
		assert.NoError(t, err)
		assert.Len(t, events, 2, "a list whose answer has more than a page")
	}, time.Minute, 10*time.Millisecond)

	// An error is the last that comes.
	var failures []error
	for _, err := range c.AllAgents(t.Context(), client.ListAgentsParams{Cursor: "none of this list"}) {
		failures = append(failures, err)
	}
	require.Len(t, failures, 1)
	problem, refused := errors.AsType[*wire.Problem](failures[0])
	require.True(t, refused)
	assert.Equal(t, "cursor", problem.Field)
}

// Lists whose pages do not get on are an error of the coordinator.
func TestPagesThatDoNotEnd(t *testing.T) {
	t.Parallel()
	asked := 0
	c := fake(t, func(w http.ResponseWriter, _ *http.Request) {
		page := resource.Page[resource.Agent]{NextCursor: "again"}
		if asked++; asked > 10 {
			page.NextCursor = "" // enough
		}
		_ = json.NewEncoder(w).Encode(page)
	})
	_, _, err := client.Collect(t.Context(), c, client.ListAgentsParams{}, 0)
	require.ErrorContains(t, err, "does not end")
	failed := false
	for _, err := range c.AllAgents(t.Context(), client.ListAgentsParams{}) {
		require.ErrorContains(t, err, "does not end")
		failed = true
	}
	assert.True(t, failed)
}

func TestEntityTags(t *testing.T) {
	t.Parallel()
	coordinator := apitest.Start(t)
	c := connect(t, client.Config{Servers: []string{coordinator.URL}, Token: coordinator.Admin, Roots: roots(t, coordinator)})
	var answer client.Answer
	first, err := c.ListAPITokens(t.Context(), client.ListAPITokensParams{}, client.IfNoneMatch(""), client.Note(&answer))
	require.NoError(t, err)
	require.NotEmpty(t, answer.ETag)
	tag := answer.ETag
	answer = client.Answer{}
	again, err := c.ListAPITokens(t.Context(), client.ListAPITokensParams{}, client.IfNoneMatch(tag), client.Note(&answer))
	require.ErrorIs(t, err, client.ErrNotModified)
	assert.Nil(t, again)
	assert.Equal(t, tag, answer.ETag)
	assert.NotZero(t, answer.Index)

	_, err = c.CreateAPIToken(t.Context(), resource.CreateAPIToken{Name: "x", Role: "viewer"}, client.Note(&answer))
	require.NoError(t, err)
	assert.Equal(t, coordinator.State().Index(), answer.Index)
	again, err = c.ListAPITokens(t.Context(), client.ListAPITokensParams{}, client.IfNoneMatch(tag))
	require.NoError(t, err)
	assert.Len(t, again.Items, len(first.Items)+1)
}

// A 304 that nobody asked for is no answer of a coordinator.
func TestNotModifiedWithoutATag(t *testing.T) {
	t.Parallel()
	c := fake(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	_, err := c.ListAgents(t.Context(), client.ListAgentsParams{})
	require.ErrorContains(t, err, "not an answer of a coordinator")
	assert.NotErrorIs(t, err, client.ErrNotModified)
}

func TestReadsThatWantToBeNew(t *testing.T) {
	t.Parallel()
	var asked url.Values
	c := fake(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Query()
		w.Header().Set(resource.Index, "40")
		_, _ = w.Write([]byte("{}"))
	})
	_, err := c.Whoami(t.Context(), client.AtLeast(17), client.AtLeast(16))
	require.NoError(t, err)
	assert.Equal(t, url.Values{"min_index": {"17"}}, asked)
	_, err = c.Whoami(t.Context(), client.Consistently())
	require.NoError(t, err)
	assert.Equal(t, url.Values{"consistent": {"true"}}, asked)
	_, err = c.RetryOrder(t.Context(), client.RetryOrderParams{Agent: "a", ID: "b"}, client.AtLeast(17), client.Consistently())
	require.NoError(t, err)
	assert.Empty(t, asked, "a change is made where the leader is")
	_, err = c.Whoami(t.Context(), client.AtLeast(17))
	require.NoError(t, err)
	assert.Equal(t, url.Values{"min_index": {"40"}}, asked, "what was changed before is seen")
}
