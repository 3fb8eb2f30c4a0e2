package revocation

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// Prefix of the lists' paths. What follows is the signer's key id and
	// ca.ListSuffix. Certificates name it, so that it never changes.
	Prefix = "/ca/"

	contentType = "application/pkix-crl" // RFC 2585, section 4.2
	// freshness is how long caches on the way may hold on to a list. It is far
	// below listLifetime: what was revoked has to be heard of.
	freshness = 10 * time.Minute
	// firstPause is what is told to who asks before the first list is there.
	firstPause = 5 * time.Second
)

// ServeHTTP implements http.Handler. Anybody may read the lists: they say nothing
// but serial numbers.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		p := problem.New(wire.CodeInvalid, "", r.Method+" is not supported here", "use GET")
		p.Status, p.Title = http.StatusMethodNotAllowed, http.StatusText(http.StatusMethodNotAllowed)
		problem.Write(w, r, p)
		return
	}
	id, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, Prefix), ca.ListSuffix)
	if !ok {
		notFound(w, r)
		return
	}
	list, der, err := s.list(id)
	switch {
	case errors.Is(err, ca.ErrNoIssuer):
		notFound(w, r)
		return
	case errors.Is(err, errNoList), errors.Is(err, ca.ErrSealed):
		problem.Write(w, r, problem.Later(wire.CodeUnavailable, "there is no revocation list yet", firstPause))
		return
	case err != nil:
		s.log.Error("a revocation list cannot be made", "signer", id, "err", err)
		problem.Write(w, r, problem.New(wire.CodeInternal, "", "the revocation list cannot be made", "look in the coordinator's log"))
		return
	}
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Set("ETag", fmt.Sprintf(`"%s-%d-%d"`, id, list.Number, list.Index))
	fresh := max(min(list.NextUpdate.Sub(s.now()), freshness), 0)
	header.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(fresh.Seconds())))
	header.Set("Expires", s.now().Add(fresh).UTC().Format(http.TimeFormat))
	http.ServeContent(w, r, "", list.ThisUpdate, bytes.NewReader(der))
}

func notFound(w http.ResponseWriter, r *http.Request) {
	problem.Write(w, r, problem.New(wire.CodeNotFound, "", "there is no revocation list at this path", "\"certctl ca show\" lists their URLs"))
}

var errNoList = errors.New("no list is published yet")

// list is the newest list of one issuing CA, signed when it is first asked for.
func (s *Service) list(id string) (fleet.RevocationList, []byte, error) {
	view := s.node.State().View()
	newest, _, ok := view.NewestList()
	if !ok {
		return fleet.RevocationList{}, nil, errNoList
	}
	signers := s.ca.ListSigners()
	switch {
	case len(signers) == 0:
		return fleet.RevocationList{}, nil, ca.ErrSealed
	case !slices.Contains(signers, id):
		return fleet.RevocationList{}, nil, ca.ErrNoIssuer // before anything is read for it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if made, ok := s.made[id]; ok && made.list == *newest {
		return made.list, made.der, nil
	}
	_, entries := view.RevocationList()
	der, err := s.ca.RevocationList(id, newest, entries)
	if err != nil {
		return fleet.RevocationList{}, nil, err
	}
	maps.DeleteFunc(s.made, func(old string, _ signed) bool { return !slices.Contains(signers, old) })
	s.made[id] = signed{list: *newest, der: der}
	return *newest, der, nil
}
