package server

import (
	"encoding/json"
	"net/http"

	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

// readiness is the answer of /readyz: facts, each of which has its own cure. It
// needs no credentials, and so holds no texts.
type readiness struct {
	Ready       bool `json:"ready"`
	Running     bool `json:"running"`      // the node takes part in its cluster
	LeaderKnown bool `json:"leader_known"` // writes can go somewhere
	Leading     bool `json:"leading"`      // and that is here
	Applied     bool `json:"applied"`      // what is known to be committed is applied here
	Journal     bool `json:"journal"`      // facts can be written
	Log         bool `json:"log"`          // the Raft log can be applied
	CA          bool `json:"ca"`           // the built-in CA is unsealed
	Certificate bool `json:"certificate"`  // the server's own is valid
}

func (s *Server) ready() readiness {
	node := s.node.Ready()
	r := readiness{
		Running: node.Running, LeaderKnown: node.LeaderKnown, Leading: node.Leading, Applied: node.Applied,
		Journal: node.Journal == nil, Log: node.Failure == nil, CA: s.certificate.ca.Root() != nil,
	}
	if leaf := s.certificate.source.Leaf(); leaf != nil {
		now := s.certificate.now()
		r.Certificate = !now.Before(leaf.NotBefore) && now.Before(leaf.NotAfter)
	}
	r.Ready = node.Ready() && r.CA && r.Certificate
	return r
}

// health answers /livez and /readyz. Being alive is answering at all: a node
// that waits for a leader or for its disk is not helped by a restart.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		p := problem.New(wire.CodeInvalid, "", r.Method+" is not supported here", "use GET")
		p.Status, p.Title = http.StatusMethodNotAllowed, http.StatusText(http.StatusMethodNotAllowed)
		problem.Write(w, r, p)
		return
	}
	var body any = map[string]bool{"alive": true}
	status := http.StatusOK
	if r.URL.Path == readyPath {
		facts := s.ready()
		if body = facts; !facts.Ready {
			status = http.StatusServiceUnavailable
		}
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		panic("health: " + err.Error()) // facts are booleans
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(encoded, '\n'))
}
