package sectigo

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
)

const day = 24 * time.Hour

type field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type enrollBody struct {
	Organization      int64   `json:"orgId"`
	CSR               string  `json:"csr"`
	Profile           int64   `json:"certType"`
	Term              int     `json:"term"`
	Names             string  `json:"subjAltNames"`
	Comments          string  `json:"comments"`
	ExternalRequester string  `json:"externalRequester"`
	CustomFields      []field `json:"customFields"`
	DCVMode           string  `json:"dcvMode"`
}

// readCSR reads a request in PEM, or its base64 alone.
func readCSR(text string) (*x509.CertificateRequest, bool) {
	var der []byte
	if block, _ := pem.Decode([]byte(text)); block != nil {
		der = block.Bytes
	} else {
		der, _ = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	}
	csr, err := x509.ParseCertificateRequest(der)
	return csr, err == nil && csr.CheckSignature() == nil
}

func namesOf(csr *x509.CertificateRequest, list string) []string {
	var names []string
	for _, name := range append([]string{csr.Subject.CommonName}, strings.Split(list, ",")...) {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (s *Server) enroll(w http.ResponseWriter, r *http.Request) {
	var body enrollBody
	if !s.read(w, r, &body) {
		return
	}
	csr, sound := readCSR(body.CSR)
	modes := s.mode()
	refuse := func(code int, text string) { s.fail(w, http.StatusBadRequest, code, text) }
	switch {
	case body.Organization != Organization:
		refuse(-37, "You are not allowed to enroll for this organization")
	case !sound || len(body.CSR) > 32767:
		refuse(-138, "The CSR is not valid")
	case body.Profile != Profile:
		refuse(-39, "The certificate profile is not known")
	case !slices.Contains(Terms, body.Term):
		refuse(-36, "The term is not one of the profile's")
	case len(body.Comments) > 1024 || !addresses(body.ExternalRequester):
		refuse(-3, "A field is not valid")
	case modes.Mandatory != "" && !slices.ContainsFunc(body.CustomFields, func(f field) bool { return f.Name == modes.Mandatory && f.Value != "" }):
		refuse(-62, "The custom field "+modes.Mandatory+" is mandatory")
	case modes.UnknownDomains:
		refuse(-737, "A domain is not validated")
	case modes.BackendDown > 0:
		modes.BackendDown--
		s.Set(modes)
		refuse(-195, "The CA is not available")
	case len(namesOf(csr, body.Names)) == 0:
		refuse(-13, "There is no name")
	default:
		s.accept(w, &body, csr, modes)
	}
}

// addresses reports whether text is a list of e-mail addresses.
func addresses(text string) bool {
	if text == "" {
		return true
	}
	_, err := mail.ParseAddressList(text)
	return err == nil && len(text) <= 512
}

func (s *Server) accept(w http.ResponseWriter, body *enrollBody, csr *x509.CertificateRequest, modes Modes) {
	if modes.NoExternalRequester {
		body.ExternalRequester = ""
	}
	fields, _ := json.Marshal(body.CustomFields) // strings
	p := fakeca.Placement{
		Reference: body.Comments, CSR: csr, CommonName: csr.Subject.CommonName, Names: namesOf(csr, body.Names), Validity: time.Duration(body.Term) * day,
		Person: modes.Unproven,
		Extra: map[string]string{
			"comments": body.Comments, "external": body.ExternalRequester, "fields": string(fields), "term": strconv.Itoa(body.Term), "dcv": body.DCVMode,
		},
	}
	if modes.Unproven {
		p.Extra["unproven"] = "yes"
	}
	o, err := s.core.Accept(p)
	if err != nil {
		s.fail(w, http.StatusBadRequest, -138, err.Error())
		return
	}
	fakeca.JSON(w, http.StatusOK, map[string]any{"sslId": o.Number, "renewId": renewID(o)})
}

func renewID(o fakeca.Order) string { return "gu" + strconv.FormatInt(o.Number*7919, 36) }

// word is the state of an order as the vendor calls it.
func (s *Server) word(o fakeca.Order) string {
	if word := s.core.Word(o.ID); word != "" {
		return word
	}
	modes := s.mode()
	switch o.State {
	case fakeca.Waiting:
		if o.Extra["unproven"] != "" {
			return "Applied"
		}
		return "Requested"
	case fakeca.Working:
		return "Applied"
	case fakeca.Issued:
		switch {
		case s.core.Now().After(o.Newest().Leaf.NotAfter):
			return "Expired"
		case modes.AppliedForIssued:
			return "Applied"
		case o.Reissuing, modes.SaysReplaced && len(o.Certificates) > 1:
			return "Replaced"
		}
		return "Issued"
	case fakeca.Rejected, fakeca.Cancelled:
		return "Declined"
	}
	return "Revoked"
}

func (s *Server) date(r *http.Request, at time.Time) string {
	switch {
	case at.IsZero():
		return ""
	case r.URL.Query().Get("dateFormat") == "" || s.mode().OldDates:
		return at.UTC().Format("01/02/2006")
	}
	return at.UTC().Format(time.RFC3339)
}

func serialOf(o fakeca.Order) string {
	if newest := o.Newest(); newest != nil {
		return strings.ToUpper(newest.Leaf.SerialNumber.Text(16))
	}
	return ""
}

func (s *Server) details(w http.ResponseWriter, r *http.Request) {
	o, ok := s.found(w, r.PathValue("id"))
	if !ok {
		return
	}
	var fields []field
	_ = json.Unmarshal([]byte(o.Extra["fields"]), &fields)
	term, _ := strconv.Atoi(o.Extra["term"])
	reply := map[string]any{
		"commonName": o.CommonName, "sslId": o.Number, "id": o.Number, "orgId": Organization, "status": s.word(o), "vendor": "Sectigo Limited",
		"certType": map[string]any{"id": Profile, "name": "Fake OV", "terms": Terms}, "validationType": "OV", "term": term, "requester": Login,
		"externalRequester": o.Extra["external"], "comments": o.Extra["comments"], "requested": s.date(r, o.PlacedAt), "approved": s.date(r, o.ApprovedAt),
		"renewed": false, "serialNumber": serialOf(o), "keyType": "EC", "subjectAlternativeNames": o.Names, "customFields": fields,
	}
	if newest := o.Newest(); newest != nil {
		reply["issued"], reply["expires"] = s.date(r, newest.IssuedAt), s.date(r, newest.Leaf.NotAfter)
		reply["certificateDetails"] = map[string]any{"issuer": newest.Leaf.Issuer.String(), "subject": newest.Leaf.Subject.String()}
	}
	fakeca.JSON(w, http.StatusOK, reply)
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	has := func(name, value string) bool {
		return query.Get(name) == "" || strings.EqualFold(query.Get(name), value)
	}
	found := s.core.Listed(func(o *fakeca.Order) bool {
		san := query.Get("subjectAlternativeName")
		return has("commonName", o.CommonName) && has("externalRequester", o.Extra["external"]) && has("orgId", strconv.Itoa(Organization)) &&
			has("requester", Login) && (san == "" || slices.ContainsFunc(o.Names, func(name string) bool { return strings.EqualFold(name, san) }))
	})
	found = slices.DeleteFunc(found, func(o fakeca.Order) bool { return !has("status", s.word(o)) || !has("serialNumber", serialOf(o)) })
	position, _ := strconv.Atoi(query.Get("position"))
	size, err := strconv.Atoi(query.Get("size"))
	if err != nil || size < 1 || size > 200 {
		size = 200
	}
	w.Header().Set("X-Total-Count", strconv.Itoa(len(found)))
	rows := []any{}
	for _, o := range found[min(max(position, 0), len(found)):min(max(position, 0)+size, len(found))] {
		rows = append(rows, map[string]any{"sslId": o.Number, "commonName": o.CommonName, "subjectAlternativeNames": o.Names, "serialNumber": serialOf(o)})
	}
	fakeca.JSON(w, http.StatusOK, rows)
}

func (s *Server) types(w http.ResponseWriter, r *http.Request) {
	rows := []any{}
	if organization := r.URL.Query().Get("organizationId"); organization == "" || organization == strconv.Itoa(Organization) {
		rows = append(rows, map[string]any{
			"id": Profile, "name": "Fake OV", "terms": Terms, "keyTypes": map[string]any{"RSA": []string{"2048", "4096"}, "EC": []string{"secp256r1", "secp384r1"}},
			"useSecondaryOrgName": false,
		})
	}
	fakeca.JSON(w, http.StatusOK, rows)
}

func (s *Server) customFields(w http.ResponseWriter, _ *http.Request) {
	rows := []any{}
	if name := s.mode().Mandatory; name != "" {
		rows = append(rows, map[string]any{"id": 1, "name": name, "mandatory": true})
	}
	fakeca.JSON(w, http.StatusOK, rows)
}

func (s *Server) approve(w http.ResponseWriter, r *http.Request) {
	if o, ok := s.found(w, r.PathValue("id")); ok {
		s.done(w, s.core.Approve(o.ID))
	}
}

func (s *Server) decline(w http.ResponseWriter, r *http.Request) {
	var body struct{ Message string }
	o, ok := s.found(w, r.PathValue("id"))
	if !ok || !s.read(w, r, &body) {
		return
	}
	if o.State != fakeca.Waiting {
		s.fail(w, http.StatusBadRequest, -104, "The certificate is not in the state Requested")
		return
	}
	s.done(w, s.core.Reject(o.ID, body.Message))
}

func (s *Server) done(w http.ResponseWriter, err error) {
	if err != nil {
		s.fail(w, http.StatusBadRequest, -104, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
