package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/issuers"
)

// Issuers are the accounts at authorities. *issuers.Service is one.
type Issuers interface {
	// List is empty, and leads false, on a node that does not do the leader's work.
	List() (list []resource.Issuer, leads bool)
	// Test finds out whether an account can be used. Its error is one of
	// issuers.ErrUnknown and issuers.ErrNotLeading.
	Test(ctx context.Context, name, actor string) (*resource.IssuerTest, error)
	// Resume has an account be asked again at once. Its errors are those of Test.
	Resume(name, actor string) error
}

// noIssuers is an API without any.
type noIssuers struct{}

func (noIssuers) List() ([]resource.Issuer, bool) { return nil, true }
func (noIssuers) Test(context.Context, string, string) (*resource.IssuerTest, error) {
	return nil, issuers.ErrUnknown
}
func (noIssuers) Resume(string, string) error { return issuers.ErrUnknown }

type issuerList struct {
	Body resource.Page[resource.Issuer]
}

type issuerPath struct {
	Name string `path:"name" maxLength:"63" doc:"Name of the issuer in the coordinator's settings."`
}

type issuerTest struct {
	Body resource.IssuerTest
}

type issuerDetail struct {
	Body resource.Issuer
}

func (s *server) registerIssuers(api huma.API) {
	const path = "/api/v1/issuers"
	tags := []string{"issuers"}
	huma.Register(api, fleetWide(leads(untagged(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-issuers", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List the issuers, and how they stand",
		Description: "The accounts at authorities in the settings of the node that leads, and those that orders name beside them. The built-in CA " +
			"is none of them. It is all on one page.",
	}), "how accounts stand is in the leader's memory, and not in the state")), ofTheIssuers), s.listIssuers)
	huma.Register(api, fleetWide(leads(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "test-issuer", Method: http.MethodPost, Path: path + "/{name}/test", Tags: tags,
		Summary: "Find out whether an issuer's account can be used",
		Description: "A few requests to the authority, which order nothing and change nothing there. The status is 200 whatever comes of it; see ok. " +
			"It takes 20 seconds at most. An account that was paused is asked again when it goes well.",
	})), ofTheIssuers), s.testIssuer)
	huma.Register(api, fleetWide(leads(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "resume-issuer", Method: http.MethodPost, Path: path + "/{name}/resume", Tags: tags,
		Summary:     "Ask an issuer's authority again at once",
		Description: "Ends the pause of an account, and closes the circuit of an authority that failed, as after its credentials were changed. The answer is how it stands then.",
	})), ofTheIssuers), s.resumeIssuer)
}

func (s *server) listIssuers(context.Context, *struct{}) (*issuerList, error) {
	list, leads := s.Issuers.List()
	if !leads {
		return nil, elsewhere()
	}
	if list == nil {
		list = []resource.Issuer{}
	}
	return &issuerList{Body: resource.Page[resource.Issuer]{Items: list}}, nil
}

func (s *server) testIssuer(ctx context.Context, in *issuerPath) (*issuerTest, error) {
	done, err := s.Issuers.Test(ctx, in.Name, actorOf(ctx))
	if err != nil {
		return nil, s.issuerProblem("test an issuer", in.Name, err)
	}
	return &issuerTest{Body: *done}, nil
}

func (s *server) resumeIssuer(ctx context.Context, in *issuerPath) (*issuerDetail, error) {
	if err := s.Issuers.Resume(in.Name, actorOf(ctx)); err != nil {
		return nil, s.issuerProblem("resume an issuer", in.Name, err)
	}
	list, leads := s.Issuers.List()
	for _, one := range list {
		if one.Name == in.Name {
			return &issuerDetail{Body: one}, nil
		}
	}
	if leads {
		return nil, s.issuerProblem("resume an issuer", in.Name, issuers.ErrUnknown)
	}
	return nil, elsewhere()
}

// elsewhere sends a request on to the node that leads, or to its client.
func elsewhere() *Problem {
	return unavailable("this node does not lead, and only the one that does knows")
}

func (s *server) issuerProblem(doing, name string, err error) *Problem {
	switch {
	case errors.Is(err, issuers.ErrNotLeading):
		return elsewhere()
	case errors.Is(err, issuers.ErrUnknown):
		p := notFound(fmt.Sprintf("the node that leads has no issuer %q in its settings", clip(name)),
			"list the issuers to see their names; all nodes need the same ones in their settings")
		p.Field = "name"
		return p
	}
	return s.fail(doing, err)
}
