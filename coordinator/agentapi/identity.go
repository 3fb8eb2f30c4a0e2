package agentapi

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// unsigned stands for the certificate of a previewed identity, which is signed
// only when its owner turns out to have a right to it.
const unsigned = "unsigned"

// A caller is the agent behind a request. That it holds the identity's key, the
// TLS handshake has proved.
type caller struct {
	id          string
	fingerprint string // of the identity certificate that was presented
	pending     bool   // and is used for the first time
	expired     bool
	issued      time.Time
	// lost says that the identity is newer than all that is known of the agent:
	// this coordinator was restored from an earlier state. Like an expired one
	// it may renew itself, and nothing else.
	lost bool
}

// authenticate finds out who sent a request, from the client certificate alone.
func (s *Service) authenticate(r *http.Request) (caller, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return caller{}, problem.New(wire.CodeIdentityMissing, "", "the request came without a client certificate",
			"present the agent's identity; a host without one has to be enrolled")
	}
	cert := r.TLS.PeerCertificates[0]
	id, err := s.ca.AgentOf(cert)
	switch {
	case errors.Is(err, ca.ErrSealed):
		return caller{}, problem.Later(wire.CodeUnavailable, "this coordinator is starting", unavailablePause)
	case err != nil:
		return caller{}, problem.New(wire.CodeIdentityUnknown, "", "the client certificate was not issued by this coordinator as an agent's identity",
			"check the coordinator's URL, or enrol the agent with a new token")
	}
	who := caller{id: id, fingerprint: pki.Fingerprint(cert), expired: !s.now().Before(cert.NotAfter), issued: cert.NotBefore}
	return who, s.recognize(&who)
}

// recognize finds the caller's identity among those that are good at present.
func (s *Service) recognize(who *caller) error {
	agent, ok := s.node.State().View().Agent(who.id)
	who.pending, who.lost = false, false
	switch {
	case !ok:
		return problem.New(wire.CodeIdentityUnknown, "", "this agent is not known here", "enrol the agent with a new token")
	case agent.State == fleet.AgentRetired:
		s.sessions.forget(who.id)
		return problem.New(wire.CodeAgentRetired, "", "this agent was retired", "enrol the host with a new key and a new token if it is wanted again")
	case who.fingerprint == agent.Current.Fingerprint:
	case agent.Pending != nil && who.fingerprint == agent.Pending.Fingerprint:
		who.pending = true
	case newerThanKnown(agent, who.issued):
		who.lost = true
	default:
		return problem.New(wire.CodeIdentityUnknown, "", "this identity was replaced by another one",
			"use the newest identity, or enrol the agent again")
	}
	return nil
}

// newerThanKnown reports whether an identity that the CA has issued for an agent
// is from a time of which this state knows nothing. One that was replaced is
// older than what replaced it, so that it does not get in this way.
func newerThanKnown(agent *fleet.Agent, issued time.Time) bool {
	known := []*fleet.Identity{&agent.Current}
	if agent.Pending != nil {
		known = append(known, agent.Pending)
	}
	for _, identity := range known {
		cert, err := x509.ParseCertificate(identity.Certificate)
		if err != nil || !issued.After(cert.NotBefore) {
			return false
		}
	}
	return true
}

// lostIdentity has the code of an expired one, because the agent is to do the
// same.
func lostIdentity() *wire.Problem {
	return problem.New(wire.CodeIdentityExpired, "", "the agent's identity is newer than this coordinator's state, which was restored from a backup",
		"renew it at "+wire.IdentityPath+", which such an identity may do")
}

// begin waits for the turn of a request, and looks once more who sent it: the
// requests before it may have replaced the identity.
func (s *Service) begin(ctx context.Context, visit *visit, who *caller) error {
	if err := visit.begin(ctx); err != nil {
		return err
	}
	return s.recognize(who)
}

// promote makes the identity that the caller uses the only one.
func (s *Service) promote(ctx context.Context, who caller) error {
	if !who.pending {
		return nil
	}
	if err := s.propose(ctx, fleet.PromoteIdentity{AgentID: who.id, Fingerprint: who.fingerprint}, nil); err != nil {
		return err
	}
	s.log.Info("agent uses its new identity", "agent_id", who.id, "fingerprint", who.fingerprint)
	return nil
}

// renewIdentity answers wire.IdentityPath. It is the one thing that an expired
// identity may ask for.
func (s *Service) renewIdentity(r *http.Request) (any, error) {
	if err := s.leading(); err != nil {
		return nil, err
	}
	who, err := s.authenticate(r)
	if err != nil {
		return nil, err
	}
	visit, err := s.sessions.arrive(who.id)
	if err != nil {
		return nil, err
	}
	defer visit.leave()
	var request wire.IdentityRequest
	if p := wire.Decode(r.Body, wire.MaxEnrollBody, &request); p != nil {
		return nil, p
	}
	if p := request.Validate(); p != nil {
		return nil, p
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestPatience)
	defer cancel()
	subject, err := readIdentityRequest(request.CSR)
	if err != nil {
		return nil, err
	}
	if err := s.begin(ctx, visit, &who); err != nil {
		return nil, err
	}
	if err := s.promote(ctx, who); err != nil {
		return nil, err
	}
	var identity fleet.Identity
	change := fleet.SetPendingIdentity{AgentID: who.id, Identity: subject.draft()}
	if err := s.preview(change, &identity); err != nil {
		return nil, err
	}
	if identity.Fingerprint == unsigned { // else it was handed out before, and the answer got lost
		if change.Identity, err = s.issueIdentity(who.id, subject); err != nil {
			return nil, err
		}
		if err := s.propose(ctx, change, &identity); err != nil {
			return nil, err
		}
		if who.lost {
			s.log.Warn("the agent's identity is newer than this coordinator's state, which was restored; it is renewed", "agent_id", who.id, "fingerprint", who.fingerprint)
		}
		s.log.Info("identity renewed", "agent_id", who.id, "fingerprint", identity.Fingerprint, "not_after", identity.NotAfter, "was_expired", who.expired)
	}
	chain, err := s.identityChain(identity)
	if err != nil {
		return nil, err
	}
	return wire.IdentityResponse{Chain: chain, Roots: s.ca.RootsPEM(), ServerTime: s.now().UTC()}, nil
}

// A subject is a key that an identity is wanted for.
type subject struct {
	publicKey   any
	fingerprint string
}

// draft is the subject's identity before it is signed.
func (s subject) draft() fleet.Identity {
	return fleet.Identity{Fingerprint: unsigned, PublicKeyFingerprint: s.fingerprint}
}

func readIdentityRequest(csr []byte) (subject, error) {
	pub, err := ca.ParseIdentityRequest(csr)
	if err != nil {
		return subject{}, csrProblem("csr", err)
	}
	fingerprint, err := pki.PublicKeyFingerprint(pub)
	if err != nil {
		return subject{}, csrProblem("csr", err)
	}
	return subject{publicKey: pub, fingerprint: fingerprint}, nil
}

func csrProblem(field string, err error) *wire.Problem {
	if errors.Is(err, pki.ErrWeakKey) {
		return problem.New(wire.CodeKeyRefused, field, err.Error(), "make a new key, such as ECDSA on P-256, and ask again")
	}
	return problem.New(wire.CodeCSRInvalid, field, err.Error(), "make a new certificate request and ask again")
}

func (s *Service) issueIdentity(agentID string, subject subject) (fleet.Identity, error) {
	cert, err := s.ca.IssueIdentity(agentID, subject.publicKey)
	if errors.Is(err, ca.ErrSealed) {
		return fleet.Identity{}, problem.Later(wire.CodeUnavailable, "this coordinator is starting", unavailablePause)
	}
	if err != nil {
		return fleet.Identity{}, err
	}
	return fleet.Identity{
		Certificate: cert.Raw, Fingerprint: pki.Fingerprint(cert), PublicKeyFingerprint: subject.fingerprint,
		Serial: pki.SerialHex(cert), NotAfter: cert.NotAfter.UTC(),
	}, nil
}

// identityChain is a stored identity and its issuer in PEM.
func (s *Service) identityChain(identity fleet.Identity) (string, error) {
	cert, err := x509.ParseCertificate(identity.Certificate)
	if err != nil {
		return "", fmt.Errorf("stored identity %s: %w", identity.Fingerprint, err)
	}
	chain, err := s.ca.IdentityChain(cert)
	if errors.Is(err, ca.ErrOutdated) {
		return "", problem.New(wire.CodeConflict, "csr", "the certificate that was made for this key leads to a root that is trusted no more: the CA was rotated since",
			"ask with a new key; for an enrolment that is a new token")
	}
	if err != nil {
		return "", err
	}
	return string(pki.EncodeChainPEM(chain)), nil
}
