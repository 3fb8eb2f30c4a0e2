package agentapi

import (
	"net/http"
	"time"

	"github.com/certctl/certctl/coordinator/pass"
	"github.com/certctl/certctl/shared/wire"
)

// strangerPatience is how long the body of a request may take to arrive whose
// sender this node does not know.
const strangerPatience = 10 * time.Second

// largest is the size of the largest body of a request that only the leader
// answers; 0 for those that any node does.
func largest(path string) int64 {
	switch path {
	case wire.SyncPath:
		return wire.MaxSyncBody
	case wire.EnrollPath, wire.IdentityPath:
		return wire.MaxEnrollBody
	}
	return 0
}

// toLeader passes a request on that another node has to answer, and returns nil
// when it is answered. Else it returns the request to be answered here. One that
// was passed to this node already goes no further.
func (s *Service) toLeader(w http.ResponseWriter, r *http.Request) (here *http.Request) {
	size := largest(r.URL.Path)
	if _, passed := pass.From(r.Context()); s.passer == nil || size == 0 || passed || s.node.IsLeader() {
		return r
	}
	leave, err := s.admit(w, r)
	if err != nil {
		s.refuse(w, r, err)
		return nil
	}
	defer leave()
	return s.passer.Pass(w, r, size)
}

// admit counts a request before its body is read, as the leader would: who sends
// bodies slowly is not to hold places for others here either. This node may know
// less than the leader: what it does not recognise is for the leader to judge.
func (s *Service) admit(w http.ResponseWriter, r *http.Request) (leave func(), err error) {
	leave = func() {}
	if r.URL.Path == wire.EnrollPath {
		return leave, nil
	}
	who, err := s.authenticate(r)
	if code := codeOf(err); code == wire.CodeIdentityMissing {
		return nil, err
	}
	if err != nil {
		// Where this cannot be set, the server's own limit holds.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(strangerPatience))
		return leave, nil //nolint:nilerr // the leader may know better
	}
	visit, err := s.sessions.arrive(who.id)
	if err != nil {
		return nil, err
	}
	return visit.leave, nil
}
