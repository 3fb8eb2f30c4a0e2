package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// reasons are the CRLReasons that somebody may give (RFC 5280, section 5.3.1).
// Those that do not revoke for good are left out: certificateHold and
// removeFromCRL; and aACompromise, which is about attribute certificates.
var reasons = map[string]int{
	"unspecified": 0, "keyCompromise": 1, "cACompromise": 2, "affiliationChanged": 3,
	"superseded": 4, "cessationOfOperation": 5, "privilegeWithdrawn": 9,
}

type revokeCertificate struct {
	DryRun bool `query:"dry_run" doc:"Say who would revoke which certificate, and revoke nothing."`
	Body   resource.RevokeCertificate
}

type revokedCertificate struct {
	Body resource.RevokedCertificate
}

func (s *server) registerRevocations(api huma.API) {
	huma.Register(api, minds(needs(fleet.RoleOperator, huma.Operation{
		OperationID: "revoke-certificate", Method: http.MethodPost, Path: "/api/v1/revocations", Tags: []string{"renewals"},
		DefaultStatus: http.StatusAccepted,
		Summary:       "Revoke a certificate",
		Description: "A certificate of the built-in CA is revoked at once, and its host is asked to replace it. So is one of an order at an authority, which is asked " +
			"while the request waits, for 20 seconds at most; if it does not do it, the request fails and may be repeated. Any other is revoked at its issuer by its host, " +
			"which then replaces it. It cannot be taken back. Revoking it again changes nothing. With dry_run nothing is revoked.",
	}), "For a token that has a scope there are no hosts outside of it, and nothing that was issued to them."), s.revokeCertificate)
}

func (s *server) revokeCertificate(ctx context.Context, in *revokeCertificate) (*revokedCertificate, error) {
	view := s.viewOf(ctx)
	serial, row, problem := s.toRevoke(view, &in.Body)
	if problem != nil {
		return nil, problem
	}
	ordered, problem := orderOf(view, serial, in.Body.AgentID, row)
	if problem != nil {
		return nil, problem
	}
	reason := reasons[in.Body.Reason] // Huma has checked it
	out := &revokedCertificate{Body: resource.RevokedCertificate{DryRun: in.DryRun, Serial: serial, By: "agent", InService: row != nil}}
	told := &out.Body
	wish := fleet.CommandAgent{Actor: actorOf(ctx), ID: newTokenID(), Kind: wire.CommandRevoke, Serial: serial, Reason: reason}
	// The CA knows what it issued, whatever hosts say.
	issued, builtin := view.Issued(serial)
	if builtin && row != nil && row.Agent != issued.Agent {
		return nil, notIts(issued.Agent)
	}
	if builtin {
		_, told.Already = view.Revocation(serial)
		if _, err := s.doOrPreview(ctx, fleet.RevokeCertificate{Actor: wish.Actor, Serial: serial, Reason: reason}, in.DryRun); err != nil {
			return nil, err
		}
		told.By, told.AgentID, told.Certificate = "builtin", issued.Agent, issued.Certificate
		// Its host is told, and need not wait until it reads the list.
		wish.Kind, wish.RevokedAt = wire.CommandRenew, s.Now()
		if revoked, ok := s.viewOf(ctx).Revocation(serial); ok {
			wish.Reason, wish.RevokedAt = revoked.Reason, revoked.At
		}
	}
	if ordered != nil {
		told.By, told.AgentID, told.Certificate, told.OrderID, told.Issuer = "authority", ordered.Agent, ordered.Certificate, ordered.ID, ordered.Issuer
		told.Already = revokedThere(ordered)
		if !in.DryRun {
			stored, err := s.revokeThere(ctx, ordered, wish.Actor, reason)
			if err != nil {
				return nil, err
			}
			ordered = stored
		}
		wish.Kind, wish.Reason = wire.CommandRenew, 0
		if revokedThere(ordered) {
			wish.Reason, wish.RevokedAt = ordered.Revocation.Reason, ordered.Revocation.DoneAt
		}
		told.Pending = !in.DryRun && !revokedThere(ordered)
	}
	if row == nil {
		return out, nil // in service nowhere: there is nothing to replace
	}
	told.AgentID, told.Certificate = row.Agent, row.Name
	wish.Agent, wish.Certificate = row.Agent, row.Name
	for _, open := range view.AgentCommands(row.Agent) {
		if !open.State.Final() && open.Kind == wish.Kind && open.Certificate == row.Name && open.Serial == wish.Serial &&
			open.RevokedAt.IsZero() == wish.RevokedAt.IsZero() {
			asked := command(open)
			told.Command = &asked
			told.Already = told.Already || told.By == "agent"
			return out, nil
		}
	}
	if _, err := s.doOrPreview(ctx, wish, in.DryRun); err != nil {
		return nil, err
	}
	if in.DryRun {
		return out, nil
	}
	if stored, ok := s.viewOf(ctx).AgentCommand(wish.Agent, wish.ID); ok {
		asked := command(stored)
		told.Command = &asked
	}
	return out, nil
}

// toRevoke finds the certificate that is meant; the row is nil if it is of the
// built-in CA and in service nowhere.
func (s *server) toRevoke(view *fleet.View, body *resource.RevokeCertificate) (string, *fleet.Certificate, *Problem) {
	byHost := body.AgentID != "" || body.Certificate != ""
	switch {
	case !byHost && body.Serial == "", byHost && (body.AgentID == "" || body.Certificate == ""):
		return "", nil, invalid("serial", "the request does not say which certificate", "give agent_id and certificate, or serial")
	case body.Serial == "":
		row, ok := view.Certificate(body.AgentID, body.Certificate)
		if !ok || row.Columns.Serial == "" {
			return "", nil, notFound("the agent has no certificate in service named "+clip(body.Certificate), "list the agent's certificates to see their names")
		}
		return row.Columns.Serial, row, nil
	}
	serial := plainHex(body.Serial)
	if byHost {
		return toRevokeAt(view, body, serial)
	}
	rows, _, err := view.Certificates(fleet.CertificateFilter{Serial: serial}, fleet.Page{Limit: 2})
	switch {
	case err != nil:
		return "", nil, s.fail("find a certificate", err)
	case len(rows) > 1:
		return "", nil, newProblem(wire.CodeConflict, "serial", "several certificates in service have this serial number, as those of different issuers may", "say which one: give agent_id and certificate too")
	case len(rows) == 1:
		return serial, rows[0], nil
	}
	if _, ok := view.Issued(serial); ok {
		return serial, nil, nil
	}
	if len(view.OrdersBySerial(serial)) > 0 {
		return serial, nil, nil
	}
	return "", nil, notFound("no host has a certificate with the serial number "+clip(serial)+" in service, and neither the built-in CA nor an order here has come to one that is unexpired", "check the number")
}

// toRevokeAt finds the certificate with a serial number that a host had in service when
// somebody looked. Other hosts may report the same number.
func toRevokeAt(view *fleet.View, body *resource.RevokeCertificate, serial string) (string, *fleet.Certificate, *Problem) {
	row, ok := view.Certificate(body.AgentID, body.Certificate)
	if ok && row.Columns.Serial == serial {
		return serial, row, nil
	}
	if _, issued := view.Issued(serial); issued {
		return serial, nil, nil
	}
	if slices.ContainsFunc(view.OrdersBySerial(serial), func(o *fleet.Order) bool { return o.Agent == body.AgentID && o.Certificate == body.Certificate }) {
		return serial, nil, nil
	}
	return "", nil, newProblem(wire.CodeConflict, "serial", "the agent does not have this certificate in service any more under the name "+clip(body.Certificate), "look at the one that it has now")
}
