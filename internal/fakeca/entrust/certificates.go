package entrust

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
)

type typed struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

type enrollBody struct {
	Profile string `json:"profileId"`
	Format  struct {
		Format string `json:"format"`
	} `json:"requiredFormat"`
	CSR       string  `json:"csr"`
	Names     []typed `json:"subjectAltNames"`
	Variables []typed `json:"subjectVariables"`
	Details   struct {
		Subject  string `json:"subjectDn"`
		Validity string `json:"validityPeriod"`
	} `json:"optionalCertificateRequestDetails"`
}

// period is a duration of ISO 8601, of days, hours and minutes.
var period = regexp.MustCompile(`^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?)?$`)

func lasts(text string) (time.Duration, bool) {
	parts := period.FindStringSubmatch(text)
	if parts == nil {
		return 0, text == ""
	}
	var sum time.Duration
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute} {
		count, _ := strconv.Atoi(parts[i+1]) // "" is none
		sum += time.Duration(count) * unit
	}
	return sum, true
}

func commonName(dn string) string {
	for part := range strings.SplitSeq(dn, ",") {
		if name, value, _ := strings.Cut(strings.TrimSpace(part), "="); strings.EqualFold(name, "cn") {
			return value
		}
	}
	return ""
}

func (s *Server) enroll(w http.ResponseWriter, r *http.Request) {
	var body enrollBody
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		s.fail(w, http.StatusBadRequest, "cagw-4001", "The request cannot be read")
		return
	}
	modes := s.mode()
	der, err := base64.StdEncoding.DecodeString(body.CSR) // no armour
	var csr *x509.CertificateRequest
	if err == nil {
		csr, err = x509.ParseCertificateRequest(der)
	}
	validity, sound := lasts(body.Details.Validity)
	refuse := func(code, text string) { s.fail(w, http.StatusBadRequest, code, text) }
	switch {
	case body.Profile != Profile:
		refuse("cagw-4042", "The profile is not known")
	case body.Format.Format != "X509":
		refuse("cagw-4002", "The format is not known")
	case err != nil || csr.CheckSignature() != nil:
		refuse("cagw-4018", "The CSR is not base64 of DER")
	case !sound:
		refuse("cagw-4003", "The validity is no period")
	case modes.QuotaSpent:
		s.fail(w, http.StatusForbidden, "cagw-4035", "The cap of purchased certificates is reached")
	case modes.Rejects:
		fakeca.JSON(w, http.StatusOK, map[string]any{
			"type": "EnrollmentResponse", "message": map[string]string{"message": "Not by this policy"}, "enrollment": map[string]any{"id": "r-1", "status": "REJECTED"},
		})
	default:
		s.accept(w, r, &body, csr, validity)
	}
}

func (s *Server) accept(w http.ResponseWriter, r *http.Request, body *enrollBody, csr *x509.CertificateRequest, validity time.Duration) {
	var names []string
	for _, name := range body.Names {
		if (name.Type == "dNSName" || name.Type == "iPAddress") && !slices.Contains(names, name.Value) {
			names = append(names, name.Value)
		}
	}
	serial := s.core.NewSerial()
	o, err := s.core.Accept(fakeca.Placement{
		ID: strings.ToUpper(serial.Text(16)), Serial: serial, CSR: csr, CommonName: commonName(body.Details.Subject), Names: names, Validity: validity,
	})
	if err != nil {
		s.fail(w, http.StatusBadRequest, "cagw-4018", err.Error())
		return
	}
	s.wait(r)
	modes := s.mode()
	enrollment := map[string]any{"id": fmt.Sprintf("e-%d", o.Number), "status": "PENDING"}
	chain, ready, err := s.core.Collect(o.ID, 0)
	switch {
	case err != nil:
		s.fail(w, http.StatusInternalServerError, "cagw-5000", err.Error())
		return
	case ready:
		leaf, rest := split(o, chain)
		enrollment["status"], enrollment["serialNumber"], enrollment["subjectName"], enrollment["issuerName"] = "ACCEPTED", o.ID, leaf.Subject.String(), leaf.Issuer.String()
		enrollment["validityPeriod"] = leaf.NotBefore.UTC().Format(time.RFC3339) + "/" + leaf.NotAfter.UTC().Format(time.RFC3339)
		enrollment["body"] = inBase64([]*x509.Certificate{leaf})[0]
		if modes.PEM {
			enrollment["body"] = string(fakeca.PEM([]*x509.Certificate{leaf}))
		}
		enrollment["chain"] = s.chain(rest, modes)
	}
	if ready && modes.Word != "" {
		enrollment["status"] = modes.Word
	}
	fakeca.JSON(w, http.StatusOK, map[string]any{"type": "EnrollmentResponse", "message": map[string]string{"message": "done"}, "enrollment": enrollment})
}

// split is the certificate of an order, and whatever else comes with it.
func split(o fakeca.Order, certs []*x509.Certificate) (leaf *x509.Certificate, rest []*x509.Certificate) {
	at := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return strings.EqualFold(c.SerialNumber.Text(16), o.ID) })
	if at < 0 {
		at = slices.IndexFunc(certs, func(c *x509.Certificate) bool { return !c.IsCA })
	}
	return certs[at], slices.Delete(slices.Clone(certs), at, at+1)
}

func (s *Server) chain(rest []*x509.Certificate, modes Modes) []string {
	if modes.NoChain {
		return []string{}
	}
	return inBase64(rest)
}

// found is the order of a certificate that is issued.
func (s *Server) found(w http.ResponseWriter, r *http.Request) (fakeca.Order, bool) {
	o, err := s.core.Order(strings.ToUpper(r.PathValue("serial")))
	if err != nil || o.Newest() == nil {
		s.fail(w, http.StatusNotFound, "cagw-4043", "The certificate is not known")
		return o, false
	}
	return o, true
}

func (s *Server) certificate(w http.ResponseWriter, r *http.Request) {
	o, ok := s.found(w, r)
	if !ok {
		return
	}
	modes := s.mode()
	cert := map[string]any{"serialNumber": o.ID, "subjectName": o.Newest().Leaf.Subject.String()}
	word := "normal"
	switch {
	case s.core.Word(o.ID) != "":
		word = s.core.Word(o.ID)
	case o.State == fakeca.Revoked:
		word = "Revoked"
		cert["revocationInfo"] = map[string]any{"reason": o.Newest().Reason, "date": o.Newest().RevokedAt.UTC().Format(time.RFC3339)}
	case s.core.Now().After(o.Newest().Leaf.NotAfter):
		word = "expired"
	}
	if !modes.NoStatus {
		cert["status"] = word
	}
	chain, ready, err := s.core.Collect(o.ID, 0)
	if err != nil {
		s.fail(w, http.StatusInternalServerError, "cagw-5000", err.Error())
		return
	}
	reply := map[string]any{"type": "CertificateResponse", "certificate": cert, "chain": []string{}}
	if ready && wants(r, "certificate.certificateData") {
		leaf, rest := split(o, chain)
		cert["certificateData"] = inBase64([]*x509.Certificate{leaf})[0]
		reply["chain"] = s.chain(rest, modes)
	}
	fakeca.JSON(w, http.StatusOK, reply)
}

// events are what happened to certificates, the oldest first.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	since, err := time.Parse(time.RFC3339, query.Get("startDate"))
	if err != nil {
		s.fail(w, http.StatusBadRequest, "cagw-4004", "The start is no date")
		return
	}
	size, err := strconv.Atoi(query.Get("preferredPageSize"))
	if err != nil || size < 1 || size > maxPage {
		size = maxPage
	}
	all := slices.DeleteFunc(s.core.Listed(nil), func(o fakeca.Order) bool { return o.Newest() == nil || o.Newest().IssuedAt.Before(since) })
	from, _ := strconv.Atoi(query.Get("nextPageIndex"))
	from = min(max(from, 0), len(all))
	to := min(from+size, len(all))
	rows := []any{}
	for _, o := range all[from:to] {
		row := map[string]any{"action": "ISSUE", "event": "certificate issued", "eventDate": o.Newest().IssuedAt.UTC().Format(time.RFC3339), "serialNumber": o.ID}
		if wants(r, "events.certificate") && !s.mode().NoEventData {
			row["certificate"] = inBase64([]*x509.Certificate{o.Newest().Leaf})[0]
		}
		rows = append(rows, row)
	}
	reply := map[string]any{"type": "CertificateEventsResponse", "events": rows, "morePages": to < len(all)}
	if to < len(all) {
		reply["nextPageIndex"] = to
	}
	fakeca.JSON(w, http.StatusOK, reply)
}

// reasons of a revocation, by their codes of RFC 5280 section 5.3.1.
var reasons = map[string]int{
	"unspecified": 0, "keyCompromise": 1, "caCompromise": 2, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5, "certificateHold": 6,
	"privilegeWithdrawn": 9,
}

func (s *Server) act(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Action struct {
			Type   string `json:"type"`
			Reason string `json:"reason"`
		} `json:"action"`
	}
	o, ok := s.found(w, r)
	if !ok {
		return
	}
	err := json.NewDecoder(r.Body).Decode(&body)
	reason, known := reasons[body.Action.Reason]
	if err != nil || body.Action.Type != "RevokeAction" || !known {
		s.fail(w, http.StatusBadRequest, "cagw-4005", "The action is not known")
		return
	}
	word, status := s.mode().ActionStatus, http.StatusOK
	switch {
	case word == "ACCEPTED":
		status = http.StatusAccepted
	case word != "":
	case !o.Newest().RevokedAt.IsZero():
		word = "REJECTED"
	default:
		word, status = "COMPLETED", http.StatusCreated
		if _, err := s.core.Revoke(o.ID, o.Newest().Number, reason); err != nil {
			s.fail(w, http.StatusInternalServerError, "cagw-5000", err.Error())
			return
		}
	}
	fakeca.JSON(w, status, map[string]any{
		"type": "ActionResponse", "action": map[string]any{"id": "a-1", "type": "RevokeAction", "status": word, "reason": body.Action.Reason},
	})
}
