package api

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/shared/wire"
)

// read registers an operation whose answers have entity tags, and are sent whole or
// not at all. handle makes an answer from the picture and the request alone; shows,
// showsContact or showsJournal has said what of the picture it looks at.
func read[I, O any](s *server, api huma.API, op huma.Operation, handle func(context.Context, *picture, *I) (*O, error)) {
	if sourceOf(&op) == nil {
		panic("api: it is not said what the answers of " + op.OperationID + " are made from")
	}
	output := reflect.TypeFor[O]()
	body, ok := output.FieldByName("Body")
	if !ok {
		panic("api: the answer of " + op.OperationID + " has no body")
	}
	// Huma does not see what is in the answer, and is told.
	schema := huma.SchemaFromField(api.OpenAPI().Components.Schemas, body, output.Name()+body.Name)
	op.Responses = map[string]*huma.Response{strconv.Itoa(http.StatusOK): {
		Description: http.StatusText(http.StatusOK), Content: map[string]*huma.MediaType{contentType: {Schema: schema}},
	}}
	huma.Register(api, op, func(ctx context.Context, in *I) (*written, error) {
		a := askedOf(ctx)
		out, err := handle(ctx, a.picture, in)
		if err != nil {
			return nil, err
		}
		if list, ok := any(out).(tabular); ok && a.csv {
			return &written{Body: func(ctx huma.Context) { s.stream(api, ctx, a, list) }}, nil
		}
		var text []byte
		if ready, ok := any(out).(interface{ encoded() []byte }); ok {
			text = ready.encoded()
		} else {
			var encoded bytes.Buffer
			if err := encode(&encoded, reflect.ValueOf(out).Elem().FieldByIndex(body.Index).Interface()); err != nil {
				return nil, s.fail("encode an answer", err)
			}
			text = encoded.Bytes()
		}
		return &written{Body: func(ctx huma.Context) { s.finish(api, ctx, a, text) }}, nil
	})
}

const contentType = "application/json"

// written is an answer that this package writes.
type written struct {
	Body func(huma.Context)
}

type askedKey struct{}

// asked is a request for an answer that has a tag.
type asked struct {
	*picture
	operation string
	source    *source
	scope     fleet.Scope // of the token
	edition   edition
	// journal is the edition of the journal, and of which part, where the answer is of it.
	journal   string
	auditOnly bool
	conditions
	zipped bool // the client understands gzip
	csv    bool // the client wants CSV
}

func askedOf(ctx context.Context) *asked {
	a, _ := ctx.Value(askedKey{}).(*asked)
	return a
}

// conditional answers a read from what is known without looking at anything, or else
// lets next look.
func (s *server) conditional(api huma.API, ctx *indexed, scope fleet.Scope, next func(huma.Context)) *Problem {
	src := sourceOf(ctx.Operation())
	request, _ := humago.Unwrap(ctx)
	view := s.Node.State().View()
	a := &asked{
		operation: ctx.Operation().OperationID, source: src.within(scope), scope: scope, conditions: conditionsOf(request.Header), zipped: acceptsGzip(request.Header),
		csv: wantsCSV(ctx),
		picture: &picture{
			Clock: health.At(s.Now()), view: view.Within(scope).Watched(), whole: view, pause: s.Pause(), discreet: true,
			seen:  func(agent *fleet.Agent) time.Time { return replicatedSign(view, agent) },
			items: s.items,
		},
	}
	if src.journal != nil {
		var err error
		a.auditOnly = src.journal(ctx.Query)
		if a.journal, err = s.Journal.Edition(a.auditOnly); err != nil {
			return s.fail("read the journal", err)
		}
	}
	a.edition = s.editionOf(ctx, view, a)
	// Whoever has the tag of the answer was sent it: the request is a good one.
	if tag, ok := a.held(); ok {
		unchanged(ctx, tag)
		return nil
	}
	if a.csv {
		// It is written as it is made, and not kept.
		next(huma.WithValue(ctx, askedKey{}, a))
		return nil
	}
	page, done := s.pages.find(ctx.Context(), a.edition, a.Now)
	if page != nil {
		s.answer(api, ctx, a, page)
		return nil
	}
	defer done()
	next(huma.WithValue(ctx, askedKey{}, a))
	return nil
}

// held is the tag of the answer, if the client has it and wants it only if it is
// another one.
func (a *asked) held() (tag string, ok bool) {
	good := func(t entityTag) bool { return a.edition.good(t.opaque, a.Now, a.encodings()) }
	if m := a.match; m.given && !m.any && !slices.ContainsFunc(m.tags, func(t entityTag) bool { return !t.isWeak && good(t) }) {
		return "", false
	}
	if i := slices.IndexFunc(a.noneMatch.tags, good); i >= 0 {
		return a.noneMatch.tags[i].opaque, true
	}
	return "", false
}

// encodings are those that the client understands.
func (a *asked) encodings() []string {
	if a.zipped {
		return []string{encodingGzip, encodingNone}
	}
	return []string{encodingNone}
}

// finish sends an answer that was just made, and keeps it.
func (s *server) finish(api huma.API, ctx huma.Context, a *asked, body []byte) {
	page := newPage(body, momentOf(a.Until))
	if err := s.checkSource(a); err != nil {
		s.noTag(a, err)
		page.write(ctx, encodingNone)
		return
	}
	s.pages.put(a.edition, page)
	s.answer(api, ctx, a, page)
}

// noTag says why an answer has none. It is a good answer all the same; nobody may take it
// for that of later.
func (s *server) noTag(a *asked, err error) {
	log := s.Log.Error
	if errors.Is(err, errTorn) {
		log = s.Log.Debug
	}
	log("an answer has no entity tag", "operation", a.operation, "err", err)
}

// answer sends a page as the client's preconditions want it.
func (s *server) answer(api huma.API, ctx huma.Context, a *asked, page *page) {
	encoding := page.encoding(a.encodings())
	tag := a.edition.tag(page.until, encoding)
	switch a.outcome(tag) {
	case http.StatusPreconditionFailed:
		refuseMatch(api, ctx)
	case http.StatusNotModified:
		unchanged(ctx, tag)
	default:
		tagged(ctx, tag)
		page.write(ctx, encoding)
	}
}

// refuseMatch says that the answer is none of those that the client insists on.
func refuseMatch(api huma.API, ctx huma.Context) {
	p := withStatus(http.StatusPreconditionFailed, newProblem(wire.CodeConflict, "If-Match",
		"the answer is another one by now", "ask without If-Match, and look at what there is"))
	_ = huma.WriteErr(api, ctx, p.Status, p.Detail, p) // the error is of the connection
}

// unchanged says that the client has the answer already (RFC 9110, section 15.4.5).
func unchanged(ctx huma.Context, tag string) {
	tagged(ctx, tag)
	ctx.SetStatus(http.StatusNotModified)
}

// tagged sets what the answer and a word that it is unchanged have in common. The
// client may keep the answer, and has to ask each time; others may not.
func tagged(ctx huma.Context, tag string) {
	ctx.SetHeader("ETag", tag)
	ctx.SetHeader("Cache-Control", "private, no-cache")
	vary := "Authorization, Accept-Encoding"
	if hasCSV(ctx.Operation()) {
		vary += ", Accept"
	}
	ctx.SetHeader("Vary", vary)
}

// checkSource says why an answer may follow from more than its tag does.
func (s *server) checkSource(a *asked) error {
	if err := a.source.check(a.picture); err != nil || a.source.journal == nil {
		return err
	}
	// Facts come in while others are read.
	journal, err := s.Journal.Edition(a.auditOnly)
	if err == nil && journal != a.journal {
		err = errTorn
	}
	return err
}

var errTorn = errors.New("the journal went on meanwhile")
