package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

// Problem is the error document of every operation.
type Problem struct {
	wire.Problem
}

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (*Problem) ContentType(string) string { return wire.ProblemContentType }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.RetryAfterSeconds > 0 {
		h.Set("Retry-After", strconv.FormatInt(p.RetryAfterSeconds, 10))
	}
	return h
}

// TransformSchema implements huma.SchemaTransformer: it says in the OpenAPI
// document what the fields mean.
func (*Problem) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Description = "A problem document (RFC 9457) with a stable code."
	for field, doc := range map[string]string{
		"type":                "about:blank, or an anchor in the documentation.",
		"title":               "The class of the problem in words.",
		"status":              "The HTTP status.",
		"detail":              "What is wrong with this request.",
		"code":                "The class of the problem for programs. It stays the same when texts change.",
		"field":               "The field or parameter that is wrong.",
		"mend":                "What to do about it.",
		"retry_after_seconds": "Repeats the Retry-After header.",
		"request_id":          "Finds the request in the coordinator's log.",
	} {
		s.Properties[field].Description = doc
	}
	return s
}

func newProblem(code wire.Code, field, detail, mend string) *Problem {
	return &Problem{*problem.New(code, field, detail, mend)}
}

func invalid(field, detail, mend string) *Problem {
	return newProblem(wire.CodeInvalid, field, detail, mend)
}

func notFound(what, mend string) *Problem {
	return newProblem(wire.CodeNotFound, "", what, mend)
}

// Huma makes its own errors through this variable; it is set once, before
// anything is served.
func init() { huma.NewError = fromHuma }

// fromHuma turns an error that Huma found in a request into a problem.
func fromHuma(status int, message string, errs ...error) huma.StatusError {
	var field string
	var details []string
	for _, err := range errs {
		if err == nil {
			continue
		}
		var known *Problem
		if errors.As(err, &known) {
			return known
		}
		detail, ok := errors.AsType[*huma.ErrorDetail](err)
		if !ok {
			details = append(details, err.Error())
			continue
		}
		at := fieldOf(detail.Location)
		// What is missing is named in the text alone, and the place is where it
		// should be.
		var missing string
		if n, _ := fmt.Sscanf(detail.Message, validation.MsgExpectedRequiredProperty, &missing); n == 1 {
			at = strings.TrimPrefix(at+"."+missing, ".")
		}
		if field == "" && len(details) == 0 {
			field = at
			details = append(details, detail.Message)
			continue
		}
		details = append(details, strings.TrimSpace(at+" "+detail.Message))
	}
	slices.Sort(details[min(1, len(details)):]) // Huma walks maps
	text := strings.Join(details, "; ")
	if text == "" {
		text = message
	}
	switch {
	case status == http.StatusRequestEntityTooLarge:
		return newProblem(wire.CodeBodyTooLarge, "", message, "send less")
	case status >= http.StatusInternalServerError:
		// What went wrong inside is for the log, not for the client.
		p, _ := problem.Of(errors.New(text))
		return &Problem{*p}
	case status == http.StatusUnsupportedMediaType:
		return withStatus(status, invalid("", message, "send the body as application/json"))
	case status == http.StatusRequestTimeout:
		return withStatus(status, invalid("", "the body did not arrive in time", "send it again"))
	default:
		return invalid(field, text, "see the operation in /openapi.json")
	}
}

// withStatus is for what HTTP tells apart and a client need not.
func withStatus(status int, p *Problem) *Problem {
	p.Status, p.Title = status, http.StatusText(status)
	return p
}

// fieldOf turns Huma's location into the name that the client used.
func fieldOf(location string) string {
	for _, place := range []string{"body", "query", "path", "header"} {
		if rest, ok := strings.CutPrefix(location, place); ok {
			return strings.TrimPrefix(rest, ".")
		}
	}
	return location
}

// problemOf is the answer to an error of the packages below, and whether it is
// to be logged.
func problemOf(err error) (p *Problem, defect bool) {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p, false
	}
	if _, ok := errors.AsType[*cluster.UnknownOutcomeError](err); ok {
		// A request is another command each time it is sent.
		p := unavailable("it is not known whether the change was stored")
		p.Mend = "look whether it was, and send the request again only if it was not"
		return p, false
	}
	if errors.Is(err, fleet.ErrCursor) || errors.Is(err, history.ErrCursor) {
		return badCursor(), false
	}
	told, defect := problem.Of(err)
	return &Problem{*told}, defect
}

func badCursor() *Problem {
	return invalid("cursor", "the cursor is not one of this list", "begin again without a cursor, and keep the filter while paging")
}

func unavailable(detail string) *Problem {
	return &Problem{*problem.Later(wire.CodeUnavailable, detail, 2*time.Second)}
}

// notMember is the answer of a node that the cluster has removed.
func notMember(id string) *Problem {
	return &Problem{*problem.New(wire.CodeNotMember, "", fmt.Sprintf("the node %s is no member of the cluster any more: it was removed, or none of the members that it reaches lets it in", id),
		"ask another node; stop this one if it was removed, else bring the other members back")}
}

// refusedMethod and unknownPath are the mux's own errors as problems.
func refusedMethod(r *http.Request, allow string) *Problem {
	return withStatus(http.StatusMethodNotAllowed, invalid("",
		fmt.Sprintf("%s is not a method of %s", r.Method, clip(r.URL.Path)), "use one of "+allow))
}

func unknownPath(r *http.Request) *Problem {
	return notFound(fmt.Sprintf("there is nothing at %s", clip(r.URL.Path)), "see /openapi.json for the operations")
}
