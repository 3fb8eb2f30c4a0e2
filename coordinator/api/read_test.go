package api

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
)

// A list that forgets to say what its answers are made from has no operation, and one
// that has no tags says why.
func TestEveryReadHasATagOrAReason(t *testing.T) {
	s := &server{}
	var without []string
	for path, item := range s.register(http.NewServeMux()).OpenAPI().Paths {
		if item.Get == nil {
			continue
		}
		why, _ := item.Get.Metadata[untaggedKey].(string)
		switch src := sourceOf(item.Get); {
		case src != nil:
			assert.Empty(t, why, path)
			assert.True(t, len(src.tables) > 0 || src.journal != nil, path)
			assert.Contains(t, item.Get.Responses, "304", path)
		case why != "":
			without = append(without, item.Get.OperationID)
		default:
			assert.Fail(t, "it has neither", "GET %s (%s): register it with read and shows, or say with untagged why not", path, item.Get.OperationID)
		}
	}
	// Lists of what is in the state are not among them.
	assert.ElementsMatch(t, []string{
		"whoami", "show-audit-head", "list-history", "show-history-status", "show-status", "show-agent", "show-host-report", "show-certificate", "show-ca", "list-members", "show-cluster-health", "diagnose-cluster", "save-snapshot",
		"list-issuers", "list-order-validations",
	}, without)
}

// onlyNode is a node that answers reads.
type onlyNode struct {
	Node
	state *fleet.State
}

func (n onlyNode) State() *fleet.State    { return n.state }
func (onlyNode) Ready() cluster.Readiness { return cluster.Readiness{Member: true} }

// document is an answer of the operations below.
type document struct {
	Body any
}

// serving is a server with one operation, and a way to ask it.
func serving(t *testing.T, op func(huma.Operation) huma.Operation, handle func(*picture) (*document, error)) (ask func(tag string) *httptest.ResponseRecorder, log *bytes.Buffer) {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	token := apitoken.New()
	command, err := fleet.NewCommand(time.Now(), fleet.CreateAPIToken{ID: token.ID, Name: "x", Hash: token.Hash(), Role: fleet.RoleViewer})
	require.NoError(t, err)
	entry, err := fleet.EncodeEntry([]fleet.Command{command})
	require.NoError(t, err)
	_, _, err = state.Apply(1, entry)
	require.NoError(t, err)

	log = new(bytes.Buffer)
	s := &server{Config: Config{
		Gate: NewGate(0, 0, nil), Node: onlyNode{state: state}, Authority: new(ca.CA), Pause: func() time.Duration { return time.Minute }, Now: time.Now,
		EnrollmentURL: "https://pki.example.com", Log: slog.New(slog.NewTextHandler(log, nil)),
	}, pages: pages{room: 1 << 20}}
	mux := http.NewServeMux()
	api := humago.New(mux, humaConfig())
	api.UseMiddleware(s.authenticate(api))
	described := op(needs(fleet.RoleViewer, huma.Operation{OperationID: "show-thing", Method: http.MethodGet, Path: "/api/v1/thing"}))
	read(s, api, described, func(_ context.Context, p *picture, _ *struct{}) (*document, error) { return handle(p) })
	return func(tag string) *httptest.ResponseRecorder {
		request := httptest.NewRequest(http.MethodGet, "/api/v1/thing", nil)
		request.Header.Set("Authorization", "Bearer "+token.Reveal())
		if tag != "" {
			request.Header.Set("If-None-Match", tag)
		}
		answer := httptest.NewRecorder()
		named(finish(mux)).ServeHTTP(answer, request)
		return answer
	}, log
}

func showing(tables ...fleet.Table) func(huma.Operation) huma.Operation {
	return func(op huma.Operation) huma.Operation { return shows(op, tables...) }
}

// The answer for a tag that is good is not made at all.
func TestAnUnchangedAnswerIsNotMade(t *testing.T) {
	made := 0
	ask, log := serving(t, showing(fleet.TableAgents), func(p *picture) (*document, error) {
		made++
		return &document{Body: p.view.Rows(fleet.TableAgents)}, nil
	})
	answer := ask("")
	assert.Equal(t, "0\n", answer.Body.String())
	tag := answer.Header().Get("ETag")
	assert.Equal(t, http.StatusNotModified, ask(tag).Code)
	assert.Equal(t, 1, made)
	assert.Equal(t, http.StatusOK, ask(`"x"`).Code, "nor is one that was made already")
	assert.Equal(t, 1, made)
	assert.Empty(t, log.String())
}

// An answer that was made from more than it was said to be is a good one, and has no
// tag by which it could pass for that of later; and it is told to who can mend it.
func TestAnAnswerFromSomewhereElseHasNoTag(t *testing.T) {
	for name, c := range map[string]struct {
		handle func(*picture)
		text   string
	}{
		"a table":          {func(p *picture) { p.view.Certificate("a", "b") }, "made from the table certificates"},
		"a count":          {func(p *picture) { p.view.Rows(fleet.TableOrders) }, "made from the table orders"},
		"who is cut off":   {func(p *picture) { p.contact(&fleet.Agent{ID: "a"}) }, "tells who is cut off"},
		"how far the node": {func(p *picture) { p.view.Index() }, "made from the table position"},
	} {
		t.Run(name, func(t *testing.T) {
			ask, log := serving(t, showing(fleet.TableAgents), func(p *picture) (*document, error) {
				c.handle(p)
				return &document{Body: "x"}, nil
			})
			for range 2 {
				answer := ask("*")
				assert.Equal(t, http.StatusOK, answer.Code)
				assert.Equal(t, "\"x\"\n", answer.Body.String())
				assert.NotContains(t, answer.Header(), "Etag")
				assert.Equal(t, "no-store", answer.Header().Get("Cache-Control"))
				assert.Contains(t, log.String(), c.text)
			}
		})
	}
}

// An answer that breaks off while it is made is an error, and not half an answer.
func TestAnAnswerIsWholeOrAnError(t *testing.T) {
	ask, log := serving(t, showing(fleet.TableAgents), func(*picture) (*document, error) {
		return &document{Body: []any{"the beginning", brokenDocument{}}}, nil
	})
	for range 2 {
		answer := ask("")
		assert.Equal(t, http.StatusInternalServerError, answer.Code)
		assert.NotContains(t, answer.Body.String(), "the beginning")
		assert.NotContains(t, answer.Header(), "Etag")
	}
	assert.Contains(t, log.String(), "out of ink")
}

type brokenDocument struct{}

// MarshalJSON implements json.Marshaler.
func (brokenDocument) MarshalJSON() ([]byte, error) { return nil, errors.New("out of ink") }

func TestReadChecksWhatItRegisters(t *testing.T) {
	assert.PanicsWithValue(t, "api: it is not said what the answers of show-thing are made from", func() {
		serving(t, func(op huma.Operation) huma.Operation { return op }, nil)
	})
}
