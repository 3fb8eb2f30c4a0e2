package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

type listCertificates struct {
	Agent         string    `query:"agent" maxLength:"128" doc:"Id of the agent."`
	Labels        []string  `query:"label,explode" maxItems:"32" doc:"label=value of the agent; repeat it for several, all of which must match." example:"env=prod"`
	Name          string    `query:"name" maxLength:"255" doc:"A DNS name or IP address in the certificate, exactly."`
	Q             string    `query:"q" maxLength:"255" doc:"Part of a name in the certificate or of its name in the configuration, whatever its case."`
	Issuer        string    `query:"issuer" maxLength:"128" doc:"Name of the issuer in the agent's configuration."`
	State         string    `query:"state" enum:"pending,renewing,valid,failed" doc:"Where the agent stands with it."`
	Health        []string  `query:"health" enum:"ok,renewing,unknown,at_risk,unserved,revoked,expired" doc:"One or more healths, separated by commas." example:"at_risk,unserved,expired"`
	ExpiresBefore time.Time `query:"expires_before" doc:"Only certificates that expire before this moment, soonest first."`
	Fingerprint   string    `query:"fingerprint" maxLength:"128" doc:"SHA-256 of the DER in hex, with or without colons."`
	Serial        string    `query:"serial" maxLength:"128" doc:"Serial number in hex, with or without colons."`
	Sort          string    `query:"sort" enum:"id,-id,not_after,-not_after" doc:"By agent and name, or by expiry, which lists certificates that have one and no others; with - in front from the end. Absent: by expiry with expires_before, or with the health expired and no other filter than labels, and by agent and name otherwise."`
	Paging
}

type certificatePath struct {
	Agent string `path:"agent" maxLength:"128" doc:"Id of the agent."`
	Name  string `path:"name" maxLength:"400" doc:"The certificate's name in the agent's configuration."`
}

// certificateList says what is in the answer, which is encoded item by item.
type certificateList struct {
	Body resource.Page[resource.Certificate]
	text []byte
}

func (l *certificateList) encoded() []byte { return l.text }

type certificateDetail struct {
	Body resource.Certificate
}

func (s *server) registerCertificates(api huma.API) {
	read(s, api, narrows(showsContact(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-certificates", Method: http.MethodGet, Path: "/api/v1/certificates", Tags: []string{"certificates"},
		Summary:     "List certificates",
		Description: "In an order that stays the same while paging; see sort. A page looks at 5000 certificates at most: with a filter that few of them pass it may be short, and yet have a next one.",
	}), fleet.TableCertificates, fleet.TableAgents, fleet.TableRevocations)), s.listCertificates)
	huma.Register(api, ofHost(untagged(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "show-certificate", Method: http.MethodGet, Path: "/api/v1/certificates/{agent}/{name}", Tags: []string{"certificates"},
		Summary: "Show one certificate",
	}), becauseOfSigns), "agent"), s.showCertificate)
}

func (s *server) listCertificates(_ context.Context, p *picture, in *listCertificates) (*certificateList, error) {
	labels, problem := parseLabels("label", in.Labels)
	if problem != nil {
		return nil, problem
	}
	view := p.view
	if in.Agent != "" {
		if _, ok := view.Agent(in.Agent); !ok {
			return nil, noAgent(in.Agent)
		}
	}
	filter := fleet.CertificateFilter{
		Agent: in.Agent, Labels: labels, NameContains: in.Q,
		Issuer: in.Issuer, State: wire.State(in.State), ExpiringBefore: in.ExpiresBefore,
		Fingerprint: plainHex(in.Fingerprint), Serial: plainHex(in.Serial),
	}
	if in.Name != "" {
		names, err := pki.ParseNames([]string{in.Name})
		if err != nil {
			return nil, invalid("name", err.Error(), "give a DNS name or an IP address; q finds parts of names")
		}
		filter.Name = names.Strings()[0]
	}
	wanted := make(map[resource.Health]bool, len(in.Health))
	for _, health := range in.Health {
		wanted[resource.Health(health)] = true
	}
	var keep func(*fleet.Certificate) bool
	if len(wanted) > 0 {
		keep = func(row *fleet.Certificate) bool {
			one, err := p.item(row, false)
			return err == nil && wanted[one.health]
		}
	}
	total := len(labels) == 0 && len(wanted) == 0 && unfiltered(&filter)
	by, back := strings.CutPrefix(in.Sort, "-")
	switch {
	case by == "not_after":
		filter.Sort = fleet.SortByExpiry
	case by == "id":
		filter.Sort = fleet.SortByID
	case len(wanted) == 1 && wanted[resource.HealthExpired] && unfiltered(&filter):
		// Those that have expired themselves are on the first pages. The rest has to be
		// looked at too: where an older certificate is served, that one has expired.
		filter.Sort = fleet.SortByExpiry
	}
	found, next, err := gather(in.Paging, func(page fleet.Page) ([]*fleet.Certificate, string, error) {
		page.Back = back
		return view.Certificates(filter, page)
	}, keep)
	if err != nil {
		return nil, s.fail("list", err)
	}
	page := resource.Page[struct{}]{NextCursor: next}
	documents := make([][]byte, 0, len(found))
	for _, row := range found {
		one, err := p.item(row, true)
		if err != nil {
			return nil, s.fail("encode a certificate", err)
		}
		documents = append(documents, one.data)
	}
	if total {
		rows := view.Rows(fleet.TableCertificates)
		page.Total = &rows
	}
	text, err := encodePage(documents, page)
	if err != nil {
		return nil, s.fail("encode a page", err)
	}
	return &certificateList{text: text}, nil
}

// plainHex is a fingerprint or serial number as the state has it.
func plainHex(text string) string {
	return strings.ToLower(strings.ReplaceAll(text, ":", ""))
}

func (s *server) showCertificate(ctx context.Context, in *certificatePath) (*certificateDetail, error) {
	p := s.live(scopeOf(ctx))
	row, ok := p.view.Certificate(in.Agent, in.Name)
	if !ok {
		if _, known := p.view.Agent(in.Agent); !known {
			return nil, noAgent(in.Agent)
		}
		return nil, notFound("the agent has no certificate named "+clip(in.Name), "list the agent's certificates to see their names")
	}
	return &certificateDetail{Body: p.certificate(row)}, nil
}

// health judges a row.
func (p *picture) health(row *fleet.Certificate, agent contact) (resource.Health, string) {
	c := health.Known(p.view, row)
	return judge(&c, agent, p.Clock)
}

func (p *picture) certificate(row *fleet.Certificate) resource.Certificate {
	c := health.Known(p.view, row)
	out := resource.Certificate{
		AgentID: row.Agent, Name: row.Name, State: string(c.State), Names: c.Names.Strings(), FormerConfiguration: c.Former,
		Issuer: c.Issuer, IssuerKind: c.IssuerKind, IssuerDN: c.IssuerDN, Serial: c.Serial, Fingerprint: c.Fingerprint,
		KeyAlgorithm: c.KeyAlgorithm, NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), RenewAt: c.RenewAt.UTC(), SafeUntil: c.SafeUntil.UTC(),
		Renewals: c.Renewals, Deployments: make([]resource.Deployment, 0, len(c.Deployments)),
		Attempt: c.Attempt, NextAttempt: c.NextAttempt.UTC(), LastError: c.LastError, LastErrorAt: c.LastErrorAt.UTC(),
		NeedsAttention: c.NeedsAttention, RevokedAt: c.RevokedAt.UTC(),
	}
	if !c.RevokedAt.IsZero() {
		out.Revocation = pki.ReasonName(c.RevocationReason)
	}
	for _, d := range c.Deployments {
		out.Deployments = append(out.Deployments, resource.Deployment{
			ID: d.ID, State: string(d.State), Fingerprint: d.Fingerprint, At: d.At.UTC(), Detail: d.Detail,
		})
	}
	if agent, ok := p.view.Agent(row.Agent); ok {
		out.Hostname = agent.Host.Hostname
	}
	agent := p.contactOf(row)
	out.AgentLastSeen = agent.seen.UTC()
	out.Health, out.HealthReason = judge(&c, agent, p.Clock)
	return out
}

// unfiltered reports whether a filter has nothing but labels.
func unfiltered(f *fleet.CertificateFilter) bool {
	return f.Agent == "" && f.Name == "" && f.NameContains == "" && f.Issuer == "" && f.State == "" &&
		f.ExpiringBefore.IsZero() && f.Fingerprint == "" && f.Serial == ""
}
