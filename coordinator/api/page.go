package api

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

// Encodings of answers.
const (
	encodingNone = ""
	encodingGzip = "gzip"
)

// worthZipping is the size from which on an answer is sent compressed: what is smaller
// goes in one packet either way.
const worthZipping = 1400

// A page is an answer as it is sent. It is used by any number of requests.
type page struct {
	body  []byte
	until int64 // the moment up to which it is good; 0: no time makes it another one
	zip   sync.Once
	small []byte // compressed
}

func newPage(body []byte, until int64) *page { return &page{body: body, until: until} }

// encoding is the one of those that a client understands, the best first, that the
// page is sent in.
func (p *page) encoding(understood []string) string {
	if len(p.body) < worthZipping {
		return encodingNone
	}
	return understood[0]
}

var zippers = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic("api: " + err.Error()) // of the level
	}
	return w
}}

// in is the page in an encoding.
func (p *page) in(encoding string) []byte {
	if encoding != encodingGzip {
		return p.body
	}
	p.zip.Do(func() {
		w, ok := zippers.Get().(*gzip.Writer)
		if !ok {
			panic("api: the pool has something else")
		}
		defer zippers.Put(w)
		var out bytes.Buffer
		w.Reset(&out)
		_, err := w.Write(p.body)
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			panic("api: memory refuses octets: " + err.Error())
		}
		p.small = out.Bytes()
	})
	return p.small
}

// write sends the page. A client that gets less than the length that it is told knows
// that the answer broke off.
func (p *page) write(ctx huma.Context, encoding string) {
	body := p.in(encoding)
	ctx.SetHeader("Content-Type", contentType)
	if encoding != encodingNone {
		ctx.SetHeader("Content-Encoding", encoding)
	}
	ctx.SetHeader("Content-Length", strconv.Itoa(len(body)))
	ctx.SetStatus(http.StatusOK)
	if ctx.Method() != http.MethodHead {
		_, _ = ctx.BodyWriter().Write(body) // the client may be gone
	}
}

// acceptsGzip reports whether a client understands gzip (RFC 9110, section 12.5.3).
func acceptsGzip(header http.Header) bool {
	accepts := false
	for _, line := range header["Accept-Encoding"] {
		for element := range strings.SplitSeq(line, ",") {
			coding, parameters, _ := strings.Cut(element, ";")
			switch coding = strings.Trim(coding, " \t"); {
			case strings.EqualFold(coding, encodingGzip), strings.EqualFold(coding, "x-gzip"):
				return weight(parameters) > 0
			case coding == "*":
				accepts = weight(parameters) > 0
			}
		}
	}
	return accepts
}

// weight is the q of an element; 1 without one, and 0 for what is none.
func weight(parameters string) float64 {
	q, found := strings.CutPrefix(strings.ToLower(strings.Trim(parameters, " \t")), "q=")
	if !found {
		return 1
	}
	w, err := strconv.ParseFloat(q, 32)
	if err != nil || w < 0 || w > 1 {
		return 0
	}
	return w
}
