package api

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// enrolmentsInScope is what becomes of enrolment tokens for a token with a scope.
const enrolmentsInScope = "For a token that has a scope there are those alone whose agents will be in it."

const (
	defaultEnrollmentTTL = time.Hour
	defaultUses          = 1
	// rootAuthority is the name of the root among the built-in authorities.
	rootAuthority = "root"
)

type listTokens struct {
	State string `query:"state" enum:"usable,used,expired,revoked" doc:"Absent: all."`
	Paging
}

type tokenPath struct {
	ID string `path:"id" maxLength:"64" doc:"Id of the token: the part between the first and the second dot."`
}

type enrollmentTokenDetail struct {
	Body resource.EnrollmentToken
}

type createEnrollmentToken struct {
	Body resource.CreateEnrollmentToken
}

type createdEnrollmentToken struct {
	Body resource.CreatedEnrollmentToken
}

func (s *server) registerEnrollmentTokens(api huma.API) {
	const path = "/api/v1/enrollment-tokens"
	tags := []string{"enrollment tokens"}
	huma.Register(api, minds(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "create-enrollment-token", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Create an enrolment token",
		Description: "The answer is the only one that has the token itself. Asking again makes another token.",
	}), "With a token that has a scope, the labels have to be those of hosts in it."), s.createEnrollmentToken)
	read(s, api, minds(shows(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "list-enrollment-tokens", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List enrolment tokens", Description: "Newest first, ended ones too.",
	}), fleet.TableEnrollmentTokens), enrolmentsInScope), s.listEnrollmentTokens)
	huma.Register(api, minds(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "revoke-enrollment-token", Method: http.MethodPost, Path: path + "/{id}/revoke", Tags: tags,
		Summary:     "Revoke an enrolment token",
		Description: "Nobody enrols with it any more. Agents that did stay; retire them one by one. Revoking it again changes nothing.",
	}), enrolmentsInScope), s.revokeEnrollmentToken)
}

// checkGranted refuses names that no host of the token's scope may ask for yet: who may
// make hosts of a scope gives them what others gave such hosts, and nothing else.
func (s *server) checkGranted(ctx context.Context, patterns []string) *Problem {
	if scopeOf(ctx).IsZero() {
		return nil
	}
	view, granted := s.viewOf(ctx), map[string]bool{}
	for agent := range view.AllAgents() {
		if agent.State == fleet.AgentActive {
			for _, pattern := range agent.NamePatterns {
				granted[pattern] = true
			}
		}
	}
	for _, pattern := range patterns {
		if !granted[pattern] {
			return newProblem(wire.CodeForbidden, "name_patterns",
				fmt.Sprintf("no active host of the token's scope, %s, may ask for %s", scopeOf(ctx), pattern),
				"give patterns that hosts of the scope have already (\"certctl agents show\" tells them), or have a token without a scope make the enrolment token")
		}
	}
	return nil
}

func (s *server) createEnrollmentToken(ctx context.Context, in *createEnrollmentToken) (*createdEnrollmentToken, error) {
	if problem := checkLabels("labels", in.Body.Labels); problem != nil {
		return nil, problem
	}
	if scope := scopeOf(ctx); !scope.Allows(in.Body.Labels) {
		return nil, newProblem(wire.CodeForbidden, "labels", fmt.Sprintf("hosts with these labels are not in the token's scope, %s", scope),
			"give the labels of the scope, such as "+strings.Join(scopeTexts(scope), ", "))
	}
	patterns, err := pki.ParseNamePatterns(in.Body.NamePatterns)
	if err == nil {
		err = patterns.Bounded()
	}
	if err != nil {
		return nil, invalid("name_patterns", err.Error(), "give names such as web1.example.com, *.example.com or **.example.com, and addresses such as 10.0.0.0/8")
	}
	if problem := s.checkGranted(ctx, patterns.Strings()); problem != nil {
		return nil, problem
	}
	if strings.ContainsFunc(in.Body.Description, notPrintable) {
		return nil, invalid("description", "the description has control characters", "use plain text on one line")
	}
	pin, problem := s.rootPin()
	if problem != nil {
		return nil, problem
	}
	token := wire.EnrollmentToken{ID: newTokenID(), RootPin: pin}
	_, _ = rand.Read(token.Secret[:]) // never fails: crypto/rand ends the program instead
	command := fleet.CreateEnrollmentToken{
		Actor: actorOf(ctx), ID: token.ID, SecretHash: token.SecretHash(), Description: in.Body.Description,
		Labels: in.Body.Labels, NamePatterns: patterns.Strings(), MaxUses: defaultUses,
		ExpiresAt: s.Now().UTC().Add(lifetime(in.Body.TTLSeconds, defaultEnrollmentTTL)),
	}
	if in.Body.MaxUses != nil {
		command.MaxUses = *in.Body.MaxUses
	}
	if _, err := s.do(ctx, command); err != nil {
		return nil, err
	}
	stored, ok := s.viewOf(ctx).EnrollmentToken(token.ID)
	if !ok {
		return nil, s.fail("create an enrolment token", fmt.Errorf("the token %s is not in the state after it was stored", token.ID))
	}
	// The host learns of the rest by itself.
	const enough = 3
	urls := s.nodeURLs()
	servers := strings.Join(urls[:min(len(urls), enough)], " --server ")
	out := &createdEnrollmentToken{}
	out.Body = resource.CreatedEnrollmentToken{
		EnrollmentToken: enrollmentToken(stored, health.At(s.Now())), Token: token.Reveal(),
		EnrollCommand: fmt.Sprintf("certctl-agent enroll --server %s --token-file -", servers),
		Warning:       unreachable(s.Listening),
	}
	return out, nil
}

// unreachable says that no other host reaches the address, if that is so.
func unreachable(listening net.Addr) string {
	tcp, ok := listening.(*net.TCPAddr)
	if !ok || !tcp.IP.IsLoopback() {
		return ""
	}
	return fmt.Sprintf("the coordinator listens on %s, which no other host can reach by itself: set server.listen (CERTCTL_SERVER_LISTEN), such as to :%d", tcp, tcp.Port)
}

// rootPin is the fingerprint of the root that a new agent must be shown.
func (s *server) rootPin() (pin [32]byte, problem *Problem) {
	root, problem := s.root()
	if problem != nil {
		return pin, problem
	}
	return wire.PinOf(root), nil
}

// root is the root that this coordinator shows to who has not been here before.
func (s *server) root() (*x509.Certificate, *Problem) {
	ca, ok := s.Node.State().View().CA()
	if !ok {
		return nil, unavailable("the built-in CA is not made yet")
	}
	i := slices.IndexFunc(ca.Authorities, func(a fleet.Authority) bool {
		return a.Name == rootAuthority && a.State == fleet.AuthorityActive
	})
	if i < 0 {
		return nil, s.fail("make a token", fmt.Errorf("the built-in CA has no authority named %q", rootAuthority))
	}
	root, err := x509.ParseCertificate(ca.Authorities[i].Certificate)
	if err != nil {
		return nil, s.fail("make a token", fmt.Errorf("the root of the built-in CA: %w", err))
	}
	return root, nil
}

// newTokenID is 16 lower-case letters and digits; it is no secret.
func newTokenID() string {
	var id [10]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	return strings.ToLower(base32.StdEncoding.EncodeToString(id[:]))
}

// lifetime is a requested time to live, whose bounds Huma has checked.
func lifetime(seconds int64, otherwise time.Duration) time.Duration {
	if seconds == 0 {
		return otherwise
	}
	return time.Duration(seconds) * time.Second
}

func (s *server) listEnrollmentTokens(_ context.Context, p *picture, in *listTokens) (*tokenList[resource.EnrollmentToken], error) {
	about := func(t resource.EnrollmentToken) (tokenPlace, resource.TokenState) {
		return tokenPlace{t.CreatedAt, t.ID}, t.State
	}
	return listOf(p.view.EnrollmentTokens(), enrollmentToken, about, in.State, in.Paging, p.Clock)
}

func (s *server) revokeEnrollmentToken(ctx context.Context, in *tokenPath) (*enrollmentTokenDetail, error) {
	if !scopeOf(ctx).IsZero() {
		if _, ok := s.viewOf(ctx).EnrollmentToken(in.ID); !ok {
			return nil, noToken("enrolment")
		}
	}
	if _, err := s.do(ctx, fleet.RevokeEnrollmentToken{Actor: actorOf(ctx), ID: in.ID}); err != nil {
		return nil, err
	}
	stored, ok := s.viewOf(ctx).EnrollmentToken(in.ID)
	if !ok {
		return nil, notFound("the token is gone", "list the tokens to see their ids")
	}
	return &enrollmentTokenDetail{Body: enrollmentToken(stored, health.At(s.Now()))}, nil
}

func enrollmentToken(t *fleet.EnrollmentToken, now *health.Clock) resource.EnrollmentToken {
	out := resource.EnrollmentToken{
		ID: t.ID, State: resource.TokenUsable, Description: t.Description, Labels: maps.Clone(t.Labels),
		NamePatterns: slices.Clone(t.NamePatterns), MaxUses: t.MaxUses, Uses: t.Uses,
		CreatedAt: t.CreatedAt.UTC(), CreatedBy: t.CreatedBy, ExpiresAt: t.ExpiresAt.UTC(),
		RevokedAt: t.RevokedAt.UTC(), RevokedBy: t.RevokedBy,
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	if out.NamePatterns == nil {
		out.NamePatterns = []string{}
	}
	switch {
	case !t.RevokedAt.IsZero():
		out.State = resource.TokenRevoked
	case t.MaxUses > 0 && t.Uses >= t.MaxUses:
		out.State = resource.TokenUsed
	case !t.ExpiresAt.IsZero() && now.Reached(t.ExpiresAt):
		out.State = resource.TokenExpired
	}
	return out
}
