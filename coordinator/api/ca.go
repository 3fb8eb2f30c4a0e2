package api

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/revocation"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Authority is the built-in CA. *ca.CA is one.
type Authority interface {
	ClusterID() string
	// Check reports whether this node's seal key opens a stored CA.
	Check(stored *fleet.CA) error
	// Served is the ModifyIndex of the newest CA that the server shows.
	Served() uint64
	// ListSigners are the key ids of the issuing CAs that have a revocation list,
	// and ListURL is where certificates say that it is, "" if they do not.
	ListSigners() []string
	ListURL(id string) string
	// Rotate makes the change that takes a stored CA one step on.
	Rotate(stored *fleet.CA, r ca.Rotation) (fleet.ChangeCA, error)
	// SealKey seals the keys of the CAs in the state.
	SealKey() (ca.SealKey, error)
}

// maxBehind bounds the agents that are listed as being behind.
const maxBehind = 100

type caDetail struct {
	Body resource.CA
}

type rotateCA struct {
	Body resource.RotateCA
}

func (s *server) registerCA(api huma.API) {
	tags := []string{"CA"}
	huma.Register(api, fleetWide(untagged(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "show-ca", Method: http.MethodGet, Path: "/api/v1/ca", Tags: tags,
		Summary: "Show the built-in CA", Description: "Its certificates, and which agents have not learnt of the newest roots.",
	}), "it tells the last sign of life of hosts that are behind, and what this node signs"), ofTheCA), s.showCA)
	huma.Register(api, fleetWide(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "rotate-ca", Method: http.MethodPost, Path: "/api/v1/ca/rotate", Tags: tags,
		Summary: "Rotate an authority of the built-in CA",
		Description: "The issuing and the identity CA are replaced in one step; what the earlier one has signed stays good. " +
			"The root takes three: publish makes a new root that agents learn to trust beside the old one; activate lets it sign; " +
			"retire takes the old one out of what is trusted and destroys its key. Activate and retire are refused while active " +
			"agents have not reported the newest generation of trust, unless force is given.",
	}), ofTheCA), s.rotateCA)
}

func (s *server) showCA(context.Context, *struct{}) (*caDetail, error) {
	return s.caDetail("show the CA")
}

func (s *server) caDetail(doing string) (*caDetail, error) {
	v := s.Node.State().View()
	stored, ok := v.CA()
	if !ok {
		return nil, unavailable("the built-in CA is not made yet")
	}
	out := &caDetail{Body: resource.CA{
		ClusterID: s.Authority.ClusterID(), Authorities: []resource.Authority{}, TrustGeneration: len(stored.Generations),
		Rotation: resource.Rotation{NextStep: string(nextStep(stored)), Behind: []resource.AgentBehind{}},
	}}
	signers := s.Authority.ListSigners()
	for _, a := range stored.Authorities {
		cert, err := x509.ParseCertificate(a.Certificate)
		if err != nil {
			return nil, s.fail(doing, fmt.Errorf("the stored CA certificate %q: %w", a.Name, err))
		}
		state := string(a.State)
		if a.State == fleet.AuthorityActive {
			state = "active"
		}
		if a.Name == rootAuthority {
			out.Body.RootsPEM += string(pki.EncodeChainPEM([]*x509.Certificate{cert}))
		}
		shown := resource.Authority{
			Name: a.Name, State: state, Subject: cert.Subject.String(), Serial: pki.SerialHex(cert),
			Fingerprint: pki.Fingerprint(cert), NotBefore: cert.NotBefore.UTC(), NotAfter: cert.NotAfter.UTC(),
		}
		if id := hex.EncodeToString(cert.SubjectKeyId); a.Name == "issuing" && slices.Contains(signers, id) {
			shown.CRLPath, shown.CRLURL = revocation.Prefix+id+ca.ListSuffix, s.Authority.ListURL(id)
		}
		out.Body.Authorities = append(out.Body.Authorities, shown)
	}
	if list, behind, ok := v.NewestList(); ok {
		out.Body.RevocationList = &resource.RevocationList{
			Number: list.Number, ThisUpdate: list.ThisUpdate.UTC(), NextUpdate: list.NextUpdate.UTC(),
			Revoked: v.Rows(fleet.TableRevocations), Behind: behind,
		}
	}
	behind, count := v.AgentsBehind(uint64(len(stored.Generations)), maxBehind)
	out.Body.Rotation.AgentsBehind = count
	for _, agent := range behind {
		out.Body.Rotation.Behind = append(out.Body.Rotation.Behind, resource.AgentBehind{
			ID: agent.ID, Hostname: agent.Host.Hostname, TrustGeneration: agent.TrustGeneration, LastSeen: s.lastSeen(v, agent).UTC(),
		})
	}
	return out, nil
}

// nextStep is what a rotation of the root would do next.
func nextStep(stored *fleet.CA) ca.Step {
	for _, a := range stored.Authorities {
		switch {
		case a.Name == rootAuthority && a.State == fleet.AuthorityPublished:
			return ca.StepActivate
		case a.Name == rootAuthority && a.State == fleet.AuthorityRetiring:
			return ca.StepRetire
		}
	}
	return ca.StepPublish
}

func (s *server) rotateCA(ctx context.Context, in *rotateCA) (*caDetail, error) {
	const doing = "rotate the CA"
	v := s.Node.State().View()
	stored, ok := v.CA()
	if !ok {
		return nil, unavailable("the built-in CA is not made yet")
	}
	step := ca.Step(in.Body.Step)
	switch {
	case step == "":
		step = ca.StepPublish
	case in.Body.Authority != rootAuthority:
		return nil, invalid("step", "the "+in.Body.Authority+" CA is replaced in one step", "leave step out")
	}
	if step != ca.StepPublish && !in.Body.Force {
		if behind, count := v.AgentsBehind(uint64(len(stored.Generations)), 1); count > 0 {
			return nil, newProblem(wire.CodeConflict, "force",
				fmt.Sprintf("%d active agents have not reported generation %d of trust, %s (%s) among them", count, len(stored.Generations), behind[0].ID, behind[0].Host.Hostname),
				"wait for them (\"certctl ca show\" lists them), retire those that are gone, or give force: they follow the signed chain when they come back")
		}
	}
	change, err := s.Authority.Rotate(stored, ca.Rotation{Actor: actorOf(ctx), Authority: in.Body.Authority, Step: step})
	if errors.Is(err, ca.ErrRotation) {
		return nil, newProblem(wire.CodeConflict, "step", err.Error(), "\"certctl ca show\" tells the next step")
	}
	if err != nil {
		return nil, s.fail(doing, err)
	}
	if _, err := s.do(ctx, change); err != nil {
		return nil, err
	}
	return s.caDetail(doing)
}
