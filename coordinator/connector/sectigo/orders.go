package sectigo

import (
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
)

const (
	// pageSize is the most that the list shows at a time.
	pageSize = 200
	// maxListed and maxDetails bound how many orders are looked through for a lost
	// one, and how many of them are asked about.
	maxListed  = 2000
	maxDetails = 400
	// replacing marks the handle of an order that was replaced: its number stood for
	// another certificate before.
	replacing = "replacement"
)

// number is an identity: a JSON number, or a string of one.
type number string

func (n *number) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	if text == "null" || text == "" {
		return nil
	}
	if _, err := strconv.ParseUint(text, 10, 64); err != nil {
		return fmt.Errorf("%.40q is no number of a certificate", text)
	}
	if *n = number(text); strings.Trim(text, "0") == "" {
		*n = "" // an identity of zero is none
	}
	return nil
}

type enrollBody struct {
	Organization      int64         `json:"orgId"`
	CSR               string        `json:"csr"`
	Profile           int64         `json:"certType"`
	Term              int           `json:"term"`
	Names             string        `json:"subjAltNames,omitempty"`
	Comments          string        `json:"comments,omitempty"`
	ExternalRequester string        `json:"externalRequester,omitempty"`
	CustomFields      []CustomField `json:"customFields,omitempty"`
	DCVMode           string        `json:"dcvMode,omitempty"`
	DCVEmail          string        `json:"dcvEmail,omitempty"`
}

// term is how long the certificate of r shall last, of the terms that there are.
func (s *Connector) term(r *connector.Request) int {
	terms := slices.Sorted(slices.Values(s.config.Terms))
	if r.Validity <= 0 {
		return s.config.Terms[0]
	}
	chosen := terms[0]
	for _, term := range terms {
		if time.Duration(term)*day <= r.Validity {
			chosen = term
		}
	}
	return chosen
}

func (s *Connector) external(r *connector.Request) string {
	return strings.ReplaceAll(s.config.ExternalRequester, ReferencePlace, r.Reference)
}

func csrText(r *connector.Request) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.CSRDER}))
}

// Place implements connector.Connector.
func (s *Connector) Place(ctx context.Context, r *connector.Request) (*connector.Status, error) {
	body := enrollBody{
		Organization: s.config.Organization, CSR: csrText(r), Profile: s.config.Profile, Term: s.term(r), Names: strings.Join(r.Names.Strings(), ","),
		Comments: s.config.Comment, ExternalRequester: s.external(r), CustomFields: s.config.CustomFields, DCVMode: s.config.DCVMode, DCVEmail: s.config.DCVEmail,
	}
	if !s.config.NoComments {
		body.Comments = strings.TrimSpace(body.Comments + " certctl:" + r.Reference)
	}
	answer, err := s.do(ctx, connector.Call{Method: http.MethodPost, Path: []string{"ssl", "v1", "enroll"}, Body: body, Places: true})
	if err != nil {
		return nil, perhapsPlaced(err)
	}
	var placed struct {
		ID    number `json:"sslId"`
		NewID number `json:"id"`
	}
	if err := answer.Decode(&placed); err != nil {
		return nil, err
	}
	if placed.ID = cmp.Or(placed.ID, placed.NewID); placed.ID == "" {
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the answer to the order has no number of a certificate"}
	}
	return &connector.Status{
		State: connector.Pending, Handle: connector.Handle{Order: string(placed.ID)}, Reference: r.Reference, PlacedAt: answer.At,
	}, nil
}

// perhapsPlaced takes back that an order did not come to be, where the authority
// says in a status of the client's that something is wrong on its own side.
func perhapsPlaced(err error) error {
	if e := connector.Classify(err); e.Status/100 == 4 && (e.Class == connector.ClassRetry || e.Class == connector.ClassNotReady) {
		e.NotPlaced = false
	}
	return err
}

// Reissue implements connector.Reissuer, by a replacement, which keeps the number.
func (s *Connector) Reissue(ctx context.Context, r *connector.Request, of connector.Handle) (*connector.Status, error) {
	if of.Order == "" {
		return nil, errNoOrder()
	}
	body := map[string]any{"csr": csrText(r), "reason": "replaced by certctl", "commonName": r.CommonName, "subjectAlternativeNames": r.Names.Strings()}
	if s.config.DCVMode != "" {
		body["dcvMode"] = s.config.DCVMode
	}
	answer, err := s.do(ctx, connector.Call{Method: http.MethodPost, Path: []string{"ssl", "v1", "replace", of.Order}, Body: body, Places: true})
	if err != nil {
		return nil, perhapsPlaced(err)
	}
	return &connector.Status{State: connector.Pending, Handle: connector.Handle{Order: of.Order, Request: replacing}, PlacedAt: answer.At}, nil
}

type detailsAnswer struct {
	SSLID             number        `json:"sslId"`
	ID                number        `json:"id"`
	Status            string        `json:"status"`
	Comments          string        `json:"comments"`
	ExternalRequester string        `json:"externalRequester"`
	CustomFields      []CustomField `json:"customFields"`
	Requested         string        `json:"requested"`
}

func (s *Connector) details(ctx context.Context, id string) (*detailsAnswer, error) {
	call := connector.Call{Path: []string{"ssl", "v1", id}}
	if s.config.DateFormat != "-" {
		call.Query = url.Values{"dateFormat": {s.config.DateFormat}}
	}
	answer, err := s.do(ctx, call)
	if err != nil {
		return nil, err
	}
	var body detailsAnswer
	if err := answer.Decode(&body); err != nil {
		return nil, err
	}
	if body.Status == "" {
		return nil, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Detail: "the certificate that the authority shows has no state"}
	}
	return &body, nil
}

// Status implements connector.Connector.
func (s *Connector) Status(ctx context.Context, r *connector.Request, h connector.Handle) (*connector.Status, error) {
	if h.Order == "" {
		return nil, errNoOrder()
	}
	body, err := s.details(ctx, h.Order)
	if err != nil {
		return nil, err
	}
	status := s.status(body, r, h)
	return &status, nil
}

func errNoOrder() error {
	return &connector.Error{Class: connector.ClassNotFound, NotPlaced: true, Err: errors.New("the order has no number at the authority")}
}

func (s *Connector) status(body *detailsAnswer, r *connector.Request, h connector.Handle) connector.Status {
	status := s.states.Status(body.Status)
	status.Handle = connector.Handle{Order: cmp.Or(string(body.ID), string(body.SSLID), h.Order), Request: h.Request}
	status.PlacedAt = readDate(body.Requested)
	if body.has(r.Reference) {
		status.Reference = r.Reference
	}
	// For who waits for the replacement, the number stands for that.
	if strings.EqualFold(body.Status, "Replaced") && h.Request == replacing {
		status.State = connector.Issued
	}
	return status
}

// has reports whether one of the fields that an order is told by has the reference.
func (d *detailsAnswer) has(reference string) bool {
	return reference != "" && (strings.Contains(d.Comments, reference) || strings.Contains(d.ExternalRequester, reference) ||
		slices.ContainsFunc(d.CustomFields, func(f CustomField) bool { return strings.Contains(f.Value, reference) }))
}

func readDate(text string) time.Time {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z0700", time.DateOnly, "01/02/2006"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at
		}
	}
	return time.Time{}
}

// Visible implements connector.Searcher. Without a reference that the authority
// keeps, not to be found proves nothing.
func (s *Connector) Visible() time.Duration {
	if s.config.NoComments && s.config.ExternalRequester == "" {
		return -1
	}
	return s.config.Visible
}

// Search implements connector.Searcher: by the external requester, which can be
// searched for, and if no order has it, by name and then by the comments, which are
// shown with each order alone.
func (s *Connector) Search(ctx context.Context, r *connector.Request, _ time.Duration) ([]connector.Status, error) {
	if external := s.external(r); external != "" {
		found, err := s.among(ctx, r, url.Values{"externalRequester": {external}})
		if err != nil || len(found) > 0 {
			return found, err
		}
	}
	filter := url.Values{"commonName": {r.CommonName}}
	if r.CommonName == "" {
		filter = url.Values{"subjectAlternativeName": {r.Names.Strings()[0]}}
	}
	return s.among(ctx, r, filter)
}

// among is the orders of a list that have r's reference.
func (s *Connector) among(ctx context.Context, r *connector.Request, filter url.Values) ([]connector.Status, error) {
	ids, err := s.list(ctx, filter)
	if err != nil {
		return nil, err
	}
	if len(ids) > maxDetails {
		return nil, errTooMany(len(ids))
	}
	var found []connector.Status
	for _, id := range ids {
		body, err := s.details(ctx, id)
		if err != nil {
			return nil, err
		}
		if body.has(r.Reference) {
			found = append(found, s.status(body, r, connector.Handle{Order: id}))
		}
	}
	return found, nil
}

func errTooMany(count int) error {
	return &connector.Error{
		Class: connector.ClassNeedsPerson, Detail: fmt.Sprintf("the account has %d orders that may be the lost one, too many to look through", count),
		Mend: "look for the order in Sectigo Certificate Manager, and tell its number with certctl orders resolve; an external requester in the issuer's settings lets such an order be found",
	}
}

// list is the numbers of the certificates that a filter shows, newest first.
func (s *Connector) list(ctx context.Context, filter url.Values) ([]string, error) {
	var ids []string
	for position := 0; ; position += pageSize {
		query := url.Values{"size": {strconv.Itoa(pageSize)}, "position": {strconv.Itoa(position)}}
		for name, values := range filter {
			query[name] = values
		}
		answer, err := s.do(ctx, connector.Call{Path: []string{"ssl", "v1"}, Query: query})
		if err != nil {
			return nil, err
		}
		var rows []struct {
			SSLID number `json:"sslId"`
			ID    number `json:"id"`
		}
		if err := answer.Decode(&rows); err != nil {
			return nil, err
		}
		if len(ids)+len(rows) > maxListed {
			return nil, errTooMany(len(ids) + len(rows))
		}
		for _, row := range rows {
			if id := cmp.Or(row.ID, row.SSLID); id != "" && !slices.Contains(ids, string(id)) {
				ids = append(ids, string(id))
			}
		}
		total, err := strconv.Atoi(answer.Header.Get("X-Total-Count"))
		switch {
		case len(rows) < pageSize, err == nil && position+len(rows) >= total:
			slices.Reverse(ids)
			return ids, nil
		}
	}
}

// Cancel implements connector.Canceller: an order that waits for approval is
// declined. What is at the CA already cannot be taken back by the API.
func (s *Connector) Cancel(ctx context.Context, _ *connector.Request, h connector.Handle, note string) error {
	if h.Order == "" {
		return errNoOrder()
	}
	if note == "" {
		note = "cancelled by certctl"
	}
	_, err := s.do(ctx, connector.Call{Method: http.MethodPost, Path: []string{"ssl", "v1", "decline", h.Order}, Body: map[string]string{"message": note}})
	if e := connector.Classify(err); err != nil && e.Class == connector.ClassRefused && e.Mend == "" {
		e.Mend = "only a request that waits for approval can be declined: let it be issued and revoke it, or ask Sectigo"
	}
	return err
}
