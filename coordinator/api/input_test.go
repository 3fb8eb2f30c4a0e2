package api

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	nodestanding "github.com/certctl/certctl/coordinator/standing"
	"github.com/certctl/certctl/shared/wire"
)

func TestNewChecksItsConfiguration(t *testing.T) {
	_, err := New(Config{EnrollmentURL: "http://pki.example.com"})
	require.Error(t, err)
	for _, problem := range []string{"Node is missing", "Journal is missing", "Authority is missing", "Cluster is missing", "Pause is missing", "Log is missing", `EnrollmentURL "http://pki.example.com" is not an https URL`} {
		assert.ErrorContains(t, err, problem)
	}
}

// Without a server in front of it, the handler makes ids of requests itself.
func TestHandlerStandsAlone(t *testing.T) {
	node := clustertest.Start(t)
	stands, err := nodestanding.New(nodestanding.Config{NodeID: "test", DataDir: node.Dir, Node: node, Journal: node.Journal, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	handler, err := New(Config{
		Cluster: stands, Departing: node.Node, Node: node, Journal: node.Journal, Pause: func() time.Duration { return time.Minute },
		Authority: new(ca.CA), EnrollmentURL: "https://pki.example.com", Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	for _, path := range []string{"/api/v1/whoami", "/api/v1/none", "/elsewhere"} {
		answer := newAnswer()
		request, err := http.NewRequest(http.MethodGet, path, nil)
		require.NoError(t, err)
		handler.ServeHTTP(answer, request)
		assert.GreaterOrEqual(t, answer.status, 400)
		assert.NotEmpty(t, answer.header.Get("X-Request-Id"))
		assert.Contains(t, answer.body.String(), answer.header.Get("X-Request-Id"))
	}
}

type rawAnswer struct {
	header http.Header
	status int
	body   strings.Builder
}

func newAnswer() *rawAnswer { return &rawAnswer{header: http.Header{}} }

func (a *rawAnswer) Header() http.Header         { return a.header }
func (a *rawAnswer) WriteHeader(status int)      { a.status = status }
func (a *rawAnswer) Write(p []byte) (int, error) { return a.body.Write(p) }

// Before the built-in CA is made there is nobody whom a new agent could trust.
func TestEnrollmentTokenNeedsTheCA(t *testing.T) {
	node := clustertest.Start(t)
	s := &server{Config: Config{Node: node, Log: slog.New(slog.DiscardHandler), Now: time.Now}}
	_, problem := s.rootPin()
	require.NotNil(t, problem)
	assert.Equal(t, wire.CodeUnavailable, problem.Code)
	assert.Positive(t, problem.RetryAfterSeconds)

	require.NoError(t, node.Do(fleet.InitCA{Authorities: []fleet.Authority{{Name: "issuing"}}}).Err())
	_, problem = s.rootPin()
	require.NotNil(t, problem)
	assert.Equal(t, wire.CodeInternal, problem.Code)
}

// A row that cannot be read is never taken for a good one.
func TestDamagedRow(t *testing.T) {
	now := time.Now()
	row := &fleet.Certificate{Data: []byte(`{"state":"valid"`), Columns: fleet.Columns{
		State: wire.StateValid, Fingerprint: fingerprintA, NotAfter: now.Add(time.Hour),
	}}
	summary := health.SummaryOf(row)
	assert.Equal(t, fingerprintA, summary.Fingerprint)
	judged, _ := judge(&summary, contact{}, health.At(now))
	assert.False(t, judged.Well())
	row.Columns.NotAfter = now
	summary = health.SummaryOf(row)
	judged, _ = judge(&summary, contact{}, health.At(now))
	assert.Equal(t, resource.HealthExpired, judged)
}

// A filter that few records pass gives short pages, each of which continues
// where the one before ended, at a bounded cost.
func TestGather(t *testing.T) {
	const records = 3 * maxLooked
	looked := 0
	list := func(page fleet.Page) ([]int, string, error) {
		from := 0
		if page.Cursor != "" {
			from = int(page.Cursor[0]) + int(page.Cursor[1])<<8
		}
		var found []int
		for n := from; n < records && len(found) < page.Limit; n++ {
			found = append(found, n)
		}
		looked += len(found)
		if end := from + len(found); end < records {
			return found, string([]byte{byte(end), byte(end >> 8)}), nil
		}
		return found, "", nil
	}
	for _, limit := range []int{1, 7, 500} {
		for _, every := range []int{1, 3, maxLooked - 1, 2 * maxLooked, records + 1} {
			var want, got []int
			for n := 1; n < records; n++ {
				if n%every == 0 {
					want = append(want, n)
				}
			}
			if every == 1 && limit == 1 {
				continue // as many pages as records
			}
			cursor := ""
			for {
				before := looked
				found, next, err := gather(Paging{Cursor: cursor, Limit: limit}, list, func(n int) bool { return n > 0 && n%every == 0 })
				require.NoError(t, err)
				assert.LessOrEqual(t, len(found), limit)
				assert.Less(t, looked-before, maxLooked+limit)
				got = append(got, found...)
				if cursor = next; cursor == "" {
					break
				}
			}
			assert.Equal(t, want, got, "limit %d, one in %d", limit, every)
		}
	}
}

func TestTokenPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type token struct {
			at time.Time
			id string
		}
		tokens := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) token {
			return token{time.Unix(0, rapid.Int64Range(0, 3).Draw(t, "at")).UTC(), rapid.StringMatching(`[a-z0-9]{1,16}`).Draw(t, "id")}
		}), 0, 20, func(t token) string { return t.id }).Draw(t, "tokens")
		place := func(t token) tokenPlace { return tokenPlace{t.at, t.id} }
		want := slices.Clone(tokens)
		slices.SortFunc(want, func(a, b token) int {
			if d := b.at.Compare(a.at); d != 0 {
				return d
			}
			return strings.Compare(a.id, b.id)
		})
		limit, cursor := rapid.IntRange(1, 21).Draw(t, "limit"), ""
		var got []token
		for {
			page, problem := pageOf(slices.Clone(tokens), Paging{Cursor: cursor, Limit: limit}, place)
			require.Nil(t, problem)
			assert.LessOrEqual(t, len(page.Items), limit)
			got = append(got, page.Items...)
			if cursor = page.NextCursor; cursor == "" {
				break
			}
			require.Len(t, page.Items, limit)
		}
		assert.True(t, slices.Equal(want, got))
	})
}

func FuzzTokenCursor(f *testing.F) {
	f.Add("")
	f.Add(tokenPlace{time.Unix(1, 2), "abcd"}.cursor())
	f.Fuzz(func(t *testing.T, text string) {
		place, ok := parseTokenPlace(text)
		if !ok {
			return
		}
		assert.Equal(t, text, place.cursor(), "a place has one cursor")
	})
}

func FuzzIdentify(f *testing.F) {
	node := clustertest.Start(f)
	view := node.State().View()
	f.Add("Bearer cta1.abcdefgh.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("bearer  x")
	f.Add("")
	f.Fuzz(func(t *testing.T, header string) {
		token, _, problem := identify(view, header, time.Unix(0, 0))
		assert.Nil(t, token)
		require.NotNil(t, problem)
		assert.Equal(t, http.StatusUnauthorized, problem.Status)
		assert.NotEmpty(t, problem.Mend)
	})
}

func FuzzLabels(f *testing.F) {
	f.Add("env=prod")
	f.Add("=\x1b")
	f.Fuzz(func(t *testing.T, text string) {
		labels, problem := parseLabels("label", []string{text})
		if problem != nil {
			assert.Equal(t, "label", problem.Field)
			return
		}
		require.Len(t, labels, 1)
		for key, value := range labels {
			assert.Equal(t, text, key+"="+value)
			assert.NotContains(t, text, "\x1b")
		}
	})
}
