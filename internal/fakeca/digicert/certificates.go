package digicert

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
)

func (s *Server) download(w http.ResponseWriter, r *http.Request) {
	o, cert, err := s.core.ByCertificate(r.PathValue("certificate"))
	if err != nil && o.ID == "" {
		s.fail(w, http.StatusNotFound, "not_found", "The specified certificate was not found.")
		return
	}
	s.hand(w, r, o, cert.Number)
}

func (s *Server) downloadOrder(w http.ResponseWriter, r *http.Request) {
	if o, ok := s.found(w, r.PathValue("order")); ok {
		s.hand(w, r, o, 0)
	}
}

// hand sends a certificate in the format that the path names, or status 406 as long
// as there is none.
func (s *Server) hand(w http.ResponseWriter, r *http.Request, o fakeca.Order, number int64) {
	ready := false
	var chain []*x509.Certificate
	var err error
	// A certificate that is to come has no number in the ledger yet.
	if number != 0 || !strings.Contains(r.URL.Path, "/download/format/") {
		chain, ready, err = s.core.Collect(o.ID, number)
	}
	if err != nil {
		s.failed(w, err)
		return
	}
	if !ready || o.State == fakeca.Revoked {
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	kind := "application/x-pem-file"
	var body []byte
	switch r.PathValue("format") {
	case "pem_all":
		body = fakeca.PEM(chain)
	case "pem_noroot":
		body = fakeca.PEM(s.core.WithoutRoot(chain))
	case "pem_nointermediate":
		body = fakeca.PEM(leaves(chain))
	case "cer":
		kind, body = "application/x-x509-ca-cert", fakeca.PEM(leaves(chain))
	case "p7b":
		kind, body = "application/x-pkcs7-certificates", fakeca.PKCS7(s.core.WithoutRoot(chain))
	default:
		s.fail(w, http.StatusBadRequest, "bad_request_format", "The format is not known.")
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body)
}

func leaves(chain []*x509.Certificate) (list []*x509.Certificate) {
	for _, cert := range chain {
		if !cert.IsCA {
			list = append(list, cert)
		}
	}
	return list
}

// chain lists the whole chain under a name that says less.
func (s *Server) chain(w http.ResponseWriter, r *http.Request) {
	_, cert, err := s.core.ByCertificate(r.PathValue("certificate"))
	if err != nil {
		s.fail(w, http.StatusNotFound, "not_found", "The specified certificate was not found.")
		return
	}
	list := []any{}
	for _, c := range s.core.ChainOf(cert.Leaf) {
		list = append(list, map[string]any{"subject_common_name": c.Subject.CommonName, "pem": string(fakeca.PEM([]*x509.Certificate{c}))})
	}
	fakeca.JSON(w, http.StatusOK, map[string]any{"intermediates": list})
}

func (s *Server) cancel(w http.ResponseWriter, r *http.Request) {
	var body struct{ Status, Note string }
	o, ok := s.found(w, r.PathValue("order"))
	if !ok || !s.read(w, r, &body) {
		return
	}
	switch {
	case !strings.EqualFold(body.Status, "canceled") || body.Note == "":
		s.fail(w, http.StatusBadRequest, "bad_request_format", "status and note are required.")
		return
	case o.State == fakeca.Waiting && o.Extra["unproven"] == "":
		// What waits for an administrator is a request, and is rejected as one.
		s.fail(w, http.StatusBadRequest, "invalid_state", "The order is not pending.")
		return
	}
	if err := s.core.Cancel(o.ID, body.Note); err != nil {
		s.failed(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

type revokeBody struct {
	Comments     string `json:"comments"`
	SkipApproval bool   `json:"skip_approval"`
	Reason       string `json:"revocation_reason"`
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	var body revokeBody
	o, cert, err := s.core.ByCertificate(r.PathValue("certificate"))
	if err != nil {
		s.fail(w, http.StatusNotFound, "not_found", "The specified certificate was not found.")
		return
	}
	if s.read(w, r, &body) {
		s.revokeOne(w, o, cert, body)
	}
}

func (s *Server) revokeOrder(w http.ResponseWriter, r *http.Request) {
	var body revokeBody
	o, ok := s.found(w, r.PathValue("order"))
	if !ok || !s.read(w, r, &body) {
		return
	}
	if o.Newest() == nil {
		s.fail(w, http.StatusBadRequest, "invalid_state", "The order has no certificate.")
		return
	}
	for _, cert := range o.Certificates[1:] {
		_, _ = s.core.Revoke(o.ID, cert.Number, 0)
	}
	s.revokeOne(w, o, o.Certificates[0], body)
}

func (s *Server) revokeOne(w http.ResponseWriter, o fakeca.Order, cert fakeca.Certificate, body revokeBody) {
	modes := s.mode()
	switch {
	case o.Reissuing:
		s.fail(w, http.StatusBadRequest, "invalid_state", "A reissue is pending.")
	case !cert.RevokedAt.IsZero():
		s.fail(w, http.StatusBadRequest, "invalid_state", "The certificate is revoked already.")
	case modes.RevokeByRequest && !body.SkipApproval:
		id := cert.Number + requestOffset
		s.mu.Lock()
		s.requests[strconv.FormatInt(id, 10)] = request{order: o.ID, revokes: cert.Number}
		s.mu.Unlock()
		fakeca.JSON(w, http.StatusCreated, map[string]any{
			"id": id, "date": s.core.Now().UTC().Format(time.RFC3339), "type": "revoke", "status": "pending", "comments": body.Comments,
		})
	default:
		if _, err := s.core.Revoke(o.ID, cert.Number, 0); err != nil {
			s.failed(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// decide is an administrator's word on a request.
func (s *Server) decide(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Status  string `json:"status"`
		Comment string `json:"processor_comment"`
	}
	s.mu.Lock()
	asked, ok := s.requests[r.PathValue("request")]
	plain := s.modes.Plain
	s.mu.Unlock()
	switch {
	case !ok:
		s.fail(w, http.StatusNotFound, "not_found", "The specified request was not found.")
		return
	case plain:
		s.fail(w, http.StatusForbidden, "access_denied|invalid_approver", "You may not decide about this request.")
		return
	case !s.read(w, r, &body):
		return
	}
	var err error
	switch {
	case body.Status == "approved" && asked.revokes != 0:
		_, err = s.core.Revoke(asked.order, asked.revokes, asked.reason)
	case body.Status == "approved":
		err = s.core.Approve(asked.order)
	case body.Status == "rejected" && asked.revokes == 0:
		err = s.core.Reject(asked.order, body.Comment)
	case body.Status != "rejected":
		s.fail(w, http.StatusBadRequest, "bad_request_format", "status is approved or rejected.")
		return
	}
	if err != nil {
		s.failed(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) reissue(w http.ResponseWriter, r *http.Request) {
	var body orderBody
	o, ok := s.found(w, r.PathValue("order"))
	if !ok || !s.read(w, r, &body) {
		return
	}
	csr, sound := readCSR(body.Certificate.CSR)
	if !sound {
		s.fail(w, http.StatusBadRequest, "csr_invalid_cannot_parse", "The CSR cannot be parsed.")
		return
	}
	err := s.core.Reissue(o.ID, csr, body.names())
	if err == nil {
		o, err = s.core.Order(o.ID)
	}
	if err != nil {
		s.failed(w, err)
		return
	}
	s.answer(w, o)
}

// check looks for what was published, and reports whether the order is proven.
func (s *Server) check(o fakeca.Order) bool {
	if o.Extra["unproven"] == "" || o.State != fakeca.Waiting {
		return true
	}
	return o.Extra["published"] != "" && s.core.Approve(o.ID) == nil
}

func (s *Server) checkDCV(w http.ResponseWriter, r *http.Request) {
	o, ok := s.found(w, r.PathValue("order"))
	if !ok {
		return
	}
	word := "pending"
	if s.check(o) {
		word = "valid"
	}
	o, _ = s.core.Order(o.ID)
	fakeca.JSON(w, http.StatusOK, map[string]any{"order_status": s.word(o), "certificate_id": certificateID(o), "dcv_status": word})
}

func (s *Server) randomValue(w http.ResponseWriter, r *http.Request) {
	if o, ok := s.found(w, r.PathValue("order")); ok {
		fakeca.JSON(w, http.StatusOK, map[string]any{"dcv_random_value": token(o), "expiration_date": s.core.Now().Add(30 * day).UTC().Format(time.RFC3339)})
	}
}

// ofDomain is the order whose name the domain is: the fake has no others.
func (s *Server) ofDomain(w http.ResponseWriter, r *http.Request) (fakeca.Order, string, bool) {
	id, _ := strconv.ParseInt(r.PathValue("domain"), 10, 64)
	o, err := s.core.Order(strconv.FormatInt(id/100, 10))
	if err != nil || id%100 >= int64(len(o.Names)) {
		s.fail(w, http.StatusNotFound, "not_found|domain", "The specified domain was not found.")
		return o, "", false
	}
	return o, o.Names[id%100], true
}

func (s *Server) domain(w http.ResponseWriter, r *http.Request) {
	o, name, ok := s.ofDomain(w, r)
	if !ok {
		return
	}
	id, _ := strconv.ParseInt(r.PathValue("domain"), 10, 64)
	reply := map[string]any{"id": id, "name": name, "is_active": true, "dcv_method": o.Extra["dcv"]}
	if o.State == fakeca.Waiting && o.Extra["unproven"] != "" {
		reply["status"] = "pending"
		reply["dcv"] = map[string]any{"dcv_token": map[string]any{"token": token(o), "status": "pending", "expiration_date": s.core.Now().Add(30 * day).UTC().Format(time.RFC3339)}}
	} else {
		reply["status"] = "active"
		reply["dcv_expiration"] = map[string]any{"ov": s.core.Now().Add(199 * day).UTC().Format(time.DateOnly)}
	}
	fakeca.JSON(w, http.StatusOK, reply)
}

func (s *Server) validateToken(w http.ResponseWriter, r *http.Request) {
	o, _, ok := s.ofDomain(w, r)
	if !ok {
		return
	}
	if !s.check(o) {
		s.fail(w, http.StatusBadRequest, "invalid_dcv_token", "The token was not found.")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) me(w http.ResponseWriter, _ *http.Request) {
	role := "Administrator"
	if s.mode().Plain {
		role = "Standard User"
	}
	fakeca.JSON(w, http.StatusOK, map[string]any{
		"id": 1, "username": "fake-user", "account": map[string]any{"id": 99}, "first_name": "Fa", "last_name": "Ke", "email": "fake@example.com",
		"status": "active", "access_roles": []any{map[string]any{"id": 1, "name": role}},
	})
}

func (s *Server) products(w http.ResponseWriter, _ *http.Request) {
	list := []json.RawMessage{}
	for name := range Products {
		data, _ := json.Marshal(map[string]any{"name_id": name, "name": strings.ToUpper(name), "type": "ssl_certificate"})
		list = append(list, data)
	}
	fakeca.JSON(w, http.StatusOK, map[string]any{"products": list})
}
