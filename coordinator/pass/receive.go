package pass

import (
	"context"
	"net/http"

	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

// Receive is the handler of what other nodes pass on, for the listener that only
// nodes can reach. node is the caller's id, as the connection proved it; leads
// reports whether this node leads: if it does not, nothing is passed any further.
// handler gets the request as if the client had come to it, and [From] tells it
// apart.
func Receive(node func(context.Context) (id string, ok bool), leads func() bool, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, ok := node(r.Context())
		if !ok {
			problem.Write(w, r, problem.New(wire.CodeForbidden, "", errNoNode.Error(), ""))
			return
		}
		if !leads() {
			w.Header().Set(answerField, notLeading)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		beside, err := readParcel(r.Header)
		var as *http.Request
		if err == nil {
			ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), originKey{}, id), beside.patience)
			defer cancel()
			as, err = beside.request(ctx, r)
		}
		if err != nil {
			problem.Write(w, r, problem.New(wire.CodeInvalid, "", err.Error(), "both nodes have to be of versions that know each other"))
			return
		}
		w.Header().Set(answerField, answered)
		handler.ServeHTTP(w, as)
	})
}
