package api

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/certctl/certctl/coordinator/api/resource"
)

const csvKey = "csv"

// asCSV marks a read whose answers can be had as CSV too.
func asCSV(op huma.Operation) huma.Operation {
	op.Metadata[csvKey] = true
	return op
}

func hasCSV(op *huma.Operation) bool { return op.Metadata[csvKey] == true }

// A tabular answer is a list of which CSV has all items. They are written one after the other:
// a list of any size takes little room.
type tabular interface{ table(out io.Writer) error }

// wantsCSV reports whether a request is for CSV: it says so by its query, or prefers
// it to JSON.
func wantsCSV(ctx *indexed) bool {
	if !hasCSV(ctx.Operation()) {
		return false
	}
	switch ctx.Query("format") {
	case "csv":
		return true
	case "":
		request, _ := humago.Unwrap(ctx)
		return prefersCSV(request.Header)
	}
	return false
}

// prefersCSV reports whether a client likes CSV better than JSON (RFC 9110, section
// 12.5.1). What it does not name at all it likes less than what it does.
func prefersCSV(header http.Header) bool {
	csv, json := 0.0, 0.0
	for _, line := range header["Accept"] {
		for element := range strings.SplitSeq(line, ",") {
			name, parameters, _ := strings.Cut(element, ";")
			q := weight(parameters[strings.LastIndex(parameters, ";")+1:])
			switch name = strings.ToLower(strings.Trim(name, " \t")); name {
			case resource.CSVContentType:
				csv = q
			case contentType, "application/*", "*/*":
				json = max(json, q)
			}
		}
	}
	return csv > 0 && csv >= json
}

// stall is how long a client may leave an answer unread that is written as it is made.
const stall = time.Minute

// stream sends a list as CSV. Whatever ends it early is seen to have done so: the
// connection breaks off.
func (s *server) stream(api huma.API, ctx huma.Context, a *asked, list tabular) {
	encoding := a.encodings()[0]
	until := momentOf(a.Until)
	if err := s.checkSource(a); err != nil {
		s.noTag(a, err)
		ctx.SetHeader("Cache-Control", "private, no-cache")
	} else {
		tag := a.edition.tag(until, encoding)
		switch a.outcome(tag) {
		case http.StatusPreconditionFailed:
			refuseMatch(api, ctx)
			return
		case http.StatusNotModified:
			unchanged(ctx, tag)
			return
		}
		tagged(ctx, tag)
	}
	ctx.SetHeader("Content-Type", resource.CSVContentType+"; charset=utf-8; header=present")
	ctx.SetHeader("Content-Disposition", `attachment; filename="certctl-`+a.operation+`.csv"`)
	if encoding != encodingNone {
		ctx.SetHeader("Content-Encoding", encoding)
	}
	ctx.SetStatus(http.StatusOK)
	if ctx.Method() == http.MethodHead {
		return
	}
	if err := writeTable(&patientWriter{w: ctx.BodyWriter(), control: controlOf(ctx), stall: stall}, list, encoding); err != nil {
		s.Log.Debug("a table was not sent to its end", "operation", a.operation, "err", err)
		panic(http.ErrAbortHandler) // the client must not take it for whole
	}
}

func writeTable(out io.Writer, list tabular, encoding string) error {
	if encoding != encodingGzip {
		return list.table(out)
	}
	w, ok := zippers.Get().(*gzip.Writer)
	if !ok {
		return errors.New("the pool has something else")
	}
	defer zippers.Put(w)
	w.Reset(out)
	if err := list.table(w); err != nil {
		return err
	}
	return w.Close()
}

// describeCSV adds to the operations that have it that their answers can be had as CSV.
func describeCSV(document *huma.OpenAPI) {
	for _, path := range document.Paths {
		if op := path.Get; op != nil && hasCSV(op) {
			op.Responses[strconv.Itoa(http.StatusOK)].Content[resource.CSVContentType] = &huma.MediaType{Schema: &huma.Schema{
				Type: huma.TypeString, Description: "RFC 4180, with a line of names first: those of the fields of an item, and part.field for those within them. Columns are added at the end alone.",
			}}
		}
	}
}
