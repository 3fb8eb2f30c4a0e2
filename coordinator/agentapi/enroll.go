package agentapi

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"net/http"
	"strings"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

// enroll answers wire.EnrollPath. Nothing is signed and nothing enters the log
// before the state has said, in a preview, that the token is good for it:
// whoever has no token costs a look into memory.
func (s *Service) enroll(r *http.Request) (any, error) {
	if err := s.leading(); err != nil {
		return nil, err
	}
	var request wire.EnrollRequest
	if p := wire.Decode(r.Body, wire.MaxEnrollBody, &request); p != nil {
		return nil, p
	}
	if p := request.Validate(); p != nil {
		return nil, p
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestPatience)
	defer cancel()
	token, err := wire.ParseEnrollmentToken(request.Token)
	if err != nil {
		return nil, problem.New(wire.CodeTokenUnknown, "token", err.Error(), "check that the token was copied whole")
	}
	answer, err := s.enrollWith(ctx, r, token, &request)
	if err != nil {
		return nil, &tokenError{id: token.ID, err: err}
	}
	return answer, nil
}

// tokenError is a refused enrolment with the id of the token that was shown, so
// that the log leads from a stolen one to where it was tried. Never the secret.
type tokenError struct {
	id  string
	err error
}

func (e *tokenError) Error() string { return e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

func (s *Service) enrollWith(ctx context.Context, r *http.Request, token wire.EnrollmentToken, request *wire.EnrollRequest) (any, error) {
	subject, err := readIdentityRequest(request.CSR)
	if err != nil {
		return nil, err
	}

	var enrollment fleet.Enrollment
	change := fleet.EnrollAgent{
		TokenID: token.ID, SecretHash: token.SecretHash(), AgentID: newAgentID(),
		Identity: subject.draft(), Host: request.Host, Names: request.Names,
	}
	if err := s.preview(change, &enrollment); err != nil {
		return nil, err
	}
	// After the preview: who has no token is not told what the coordinator's names are.
	if own := reservedName(request.Names, s.reserved); own != "" && !enrollment.Repeated {
		return nil, reservedProblem("names", own)
	}
	if !enrollment.Repeated { // else the key was enrolled before, and the answer got lost
		if change.Identity, err = s.issueIdentity(change.AgentID, subject); err != nil {
			return nil, err
		}
		if err := s.propose(ctx, change, &enrollment); err != nil {
			return nil, err
		}
		s.log.Info("agent enrolled", "agent_id", enrollment.AgentID, "hostname", request.Host.Hostname,
			"token_id", token.ID, "remote", r.RemoteAddr, "request_id", r.Header.Get(problem.RequestIDHeader))
	}
	chain, err := s.identityChain(enrollment.Identity)
	if err != nil {
		return nil, err
	}
	return wire.EnrollResponse{
		AgentID: enrollment.AgentID, Chain: chain, Roots: s.ca.RootsPEM(),
		NamePatterns: enrollment.NamePatterns, Labels: enrollment.Labels, ServerTime: s.now().UTC(),
	}, nil
}

// newAgentID is 80 random bits in 16 lower-case letters and digits.
func newAgentID() string {
	var raw [10]byte
	_, _ = rand.Read(raw[:]) // never fails: crypto/rand ends the program instead
	return strings.ToLower(base32.StdEncoding.EncodeToString(raw[:]))
}
