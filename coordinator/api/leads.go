package api

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// leadsKey is where an operation says that only the node that leads can answer it.
const leadsKey = "leads"

// leads marks an operation that is about work which the leader alone does, and of
// which the others know nothing: they pass the request on. It has to be one that
// does no harm when it is repeated, since a change of leader has it sent again. On a
// node that turns out not to do the work it answers with unavailable, so that it is.
func leads(op huma.Operation) huma.Operation {
	if op.Metadata == nil {
		op.Metadata = map[string]any{}
	}
	op.Metadata[leadsKey] = true
	op.Description += "\n\nThe node that leads answers; any other passes the request on to it."
	return op
}

// MaxPassed bounds the body of a request that is passed on to the leader, in bytes.
const MaxPassed = 1 << 20

// passing hands the operations that leads marks to passed, and all others to here.
func passing(mux *http.ServeMux, document *huma.OpenAPI, here, passed http.Handler) http.Handler {
	led := map[string]bool{}
	for path, item := range document.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete} {
			if op != nil && op.Metadata[leadsKey] == true {
				led[op.Method+" "+path] = true
			}
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); led[pattern] {
			passed.ServeHTTP(w, r)
			return
		}
		here.ServeHTTP(w, r)
	})
}
