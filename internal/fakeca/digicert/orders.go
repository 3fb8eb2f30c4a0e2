package digicert

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
)

const day = 24 * time.Hour

// furthest is the span that status-changes takes.
const furthest = 7 * day

type validity struct {
	Years  int    `json:"years"`
	Days   int    `json:"days"`
	Custom string `json:"custom_expiration_date"`
}

type orderBody struct {
	Certificate struct {
		CommonName    string    `json:"common_name"`
		DNSNames      []string  `json:"dns_names"`
		CSR           string    `json:"csr"`
		SignatureHash string    `json:"signature_hash"`
		Validity      *validity `json:"cert_validity"`
	} `json:"certificate"`
	Organization *struct {
		ID int64 `json:"id"`
	} `json:"organization"`
	Validity     *validity `json:"order_validity"`
	Years        int       `json:"validity_years"`
	SkipApproval bool      `json:"skip_approval"`
	DCVMethod    string    `json:"dcv_method"`
	Reference    string    `json:"alternative_order_id"`
	RenewalOf    int64     `json:"renewal_of_order_id"`
}

// csr reads a request in PEM, of one line or of many.
func readCSR(text string) (*x509.CertificateRequest, bool) {
	block, _ := pem.Decode([]byte(strings.ReplaceAll(text, `\n`, "\n")))
	if block == nil {
		return nil, false
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	return request, err == nil && request.CheckSignature() == nil
}

func (b *orderBody) names() []string {
	names := slices.Clone(b.Certificate.DNSNames)
	if !slices.Contains(names, b.Certificate.CommonName) {
		names = append(names, b.Certificate.CommonName)
	}
	return names
}

func (b *orderBody) lasts() time.Duration {
	for _, v := range []*validity{b.Certificate.Validity, b.Validity} {
		if v != nil && v.Days+v.Years*365 > 0 {
			return time.Duration(v.Days+v.Years*365) * day
		}
	}
	return 0
}

func (s *Server) place(w http.ResponseWriter, r *http.Request) {
	var body orderBody
	if !s.read(w, r, &body) {
		return
	}
	product, modes := r.PathValue("product"), s.mode()
	organized, known := Products[product]
	csr, sound := readCSR(body.Certificate.CSR)
	switch {
	case !known:
		s.fail(w, http.StatusNotFound, "not_found|product", "The specified product was not found.")
	case !sound:
		s.fail(w, http.StatusBadRequest, "csr_invalid_cannot_parse", "The CSR cannot be parsed.")
	case body.Certificate.CommonName == "" || body.Certificate.SignatureHash == "":
		s.fail(w, http.StatusBadRequest, "bad_request_format", "common_name and signature_hash are required.")
	case body.Validity == nil && body.Certificate.Validity == nil && body.Years == 0:
		s.fail(w, http.StatusBadRequest, "bad_request_format", "A validity is required.")
	case organized && (body.Organization == nil || body.Organization.ID != Organization):
		s.fail(w, http.StatusBadRequest, "bad_request_format", "A valid organization.id is required.")
	case body.SkipApproval && modes.Plain:
		s.fail(w, http.StatusForbidden, "access_denied|missing_permission", "skip_approval is for administrators.")
	case modes.UniqueReference && body.Reference != "" && s.taken(body.Reference):
		s.fail(w, http.StatusBadRequest, "duplicate_alternative_order_id", "There is an order with this alternative_order_id.")
	default:
		s.accept(w, &body, product, csr, modes)
	}
}

func (s *Server) accept(w http.ResponseWriter, body *orderBody, product string, csr *x509.CertificateRequest, modes Modes) {
	p := fakeca.Placement{
		Reference: body.Reference, CSR: csr, CommonName: body.Certificate.CommonName, Names: body.names(), Validity: body.lasts(), Person: modes.Unproven,
		Extra: map[string]string{"product": product, "dcv": body.DCVMethod, "renewal_of": strconv.FormatInt(body.RenewalOf, 10)},
	}
	if modes.NoReference {
		p.Reference = ""
	}
	if modes.Unproven {
		p.Extra["unproven"] = "yes"
	}
	o, err := s.core.Accept(p)
	if err == nil && o.State == fakeca.Waiting && body.SkipApproval && !modes.Unproven {
		_ = s.core.Approve(o.ID)
		o, err = s.core.Order(o.ID)
	}
	if err != nil {
		s.failed(w, err)
		return
	}
	s.answer(w, o)
}

// answer is that to an order or a reissue: in one of three shapes.
func (s *Server) answer(w http.ResponseWriter, o fakeca.Order) {
	id := requestID(o)
	s.mu.Lock()
	s.requests[id] = request{order: o.ID}
	s.mu.Unlock()
	number, _ := strconv.ParseInt(id, 10, 64)
	word := "approved"
	if o.State == fakeca.Waiting && o.Extra["unproven"] == "" {
		word = "needs_approval"
	}
	reply := map[string]any{"id": o.Number, "requests": []any{map[string]any{"id": number, "status": word}}}
	switch {
	case o.Extra["unproven"] != "" && o.State == fakeca.Waiting:
		reply["certificate_id"] = o.NextNumber()
		reply["dcv_random_value"] = token(o)
		reply["domains"] = domains(o)
	case o.State == fakeca.Issued && !o.Reissuing:
		reply["certificate_id"] = o.Newest().Number
		if chain, ready, err := s.core.Collect(o.ID, 0); err == nil && ready {
			var list []any
			for _, cert := range chain {
				list = append(list, map[string]any{"subject_common_name": cert.Subject.CommonName, "pem": string(fakeca.PEM([]*x509.Certificate{cert}))})
			}
			reply["certificate_chain"] = list
		}
	case word == "approved":
		reply["certificate_id"] = o.NextNumber()
	}
	fakeca.JSON(w, http.StatusCreated, reply)
}

func requestID(o fakeca.Order) string { return strconv.FormatInt(o.Number-requestOffset, 10) }

// token is what a domain of the order has to show.
func token(o fakeca.Order) string {
	sum := sha256.Sum256([]byte("token of " + o.ID))
	return hex.EncodeToString(sum[:16])
}

func domains(o fakeca.Order) []any {
	var list []any
	for i, name := range o.Names {
		list = append(list, map[string]any{"id": o.Number*100 + int64(i), "name": name, "dcv_token": map[string]any{"token": token(o), "status": "pending"}})
	}
	return list
}

// word is the state of an order as the vendor calls it.
func (s *Server) word(o fakeca.Order) string {
	if word := s.core.Word(o.ID); word != "" {
		return word
	}
	switch o.State {
	case fakeca.Waiting:
		if o.Extra["unproven"] != "" {
			return "pending"
		}
		return "needs_approval"
	case fakeca.Working:
		return "pending"
	case fakeca.Issued:
		switch {
		case o.Reissuing:
			return "reissue_pending"
		case s.core.Now().After(o.Newest().Leaf.NotAfter):
			return "expired"
		}
		return "issued"
	case fakeca.Cancelled:
		return "canceled"
	}
	return string(o.State)
}

// certificateID is the one that goes with an order: the current certificate's, or
// that of the record that waits to become one.
func certificateID(o fakeca.Order) int64 {
	if newest := o.Newest(); newest != nil {
		return newest.Number
	}
	if o.State == fakeca.Waiting && o.Extra["unproven"] == "" {
		return 0
	}
	return o.NextNumber()
}

// view is an order as order info and the list show it.
func (s *Server) view(o fakeca.Order) map[string]any {
	cert := map[string]any{
		"common_name": o.CommonName, "dns_names": o.Names, "date_created": o.PlacedAt.UTC().Format(time.RFC3339), "signature_hash": "sha256",
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: o.CSR})),
	}
	if id := certificateID(o); id != 0 {
		cert["id"] = id
	}
	if newest := o.Newest(); newest != nil {
		sum := sha256.Sum256(newest.Leaf.Raw)
		cert["thumbprint"] = strings.ToUpper(hex.EncodeToString(sum[:20]))
		cert["serial_number"] = strings.ToUpper(newest.Leaf.SerialNumber.Text(16))
		cert["valid_from"], cert["valid_till"] = newest.Leaf.NotBefore.UTC().Format(time.DateOnly), newest.Leaf.NotAfter.UTC().Format(time.DateOnly)
	}
	reply := map[string]any{
		"id": o.Number, "status": s.word(o), "certificate": cert, "product": map[string]any{"name_id": o.Extra["product"]},
		"date_created": o.PlacedAt.UTC().Format(time.RFC3339), "is_renewal": o.Extra["renewal_of"] != "0", "has_pending_request": o.State == fakeca.Waiting,
	}
	if o.Reference != "" {
		reply["alternative_order_id"] = o.Reference
	}
	if o.Note != "" {
		reply["note"] = o.Note
	}
	if o.Extra["unproven"] != "" && o.State == fakeca.Waiting {
		reply["domains"], reply["dcv_method"] = domains(o), o.Extra["dcv"]
	}
	return reply
}

func (s *Server) info(w http.ResponseWriter, r *http.Request) {
	o, ok := s.found(w, r.PathValue("order"))
	if !ok {
		return
	}
	reply := s.view(o)
	id, _ := strconv.ParseInt(requestID(o), 10, 64)
	word := "approved"
	if o.State == fakeca.Waiting && o.Extra["unproven"] == "" {
		word = "pending"
	}
	reply["requests"] = []any{map[string]any{"id": id, "status": word, "type": "new_request"}}
	fakeca.JSON(w, http.StatusOK, reply)
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	name, status := query.Get("filters[common_name]"), query.Get("filters[status]")
	found := s.core.Listed(func(o *fakeca.Order) bool { return name == "" || strings.EqualFold(o.CommonName, name) })
	found = slices.DeleteFunc(found, func(o fakeca.Order) bool { return status != "" && s.word(o) != status })
	if query.Get("sort") == "-date_created" {
		slices.Reverse(found)
	}
	offset, _ := strconv.Atoi(query.Get("offset"))
	limit, err := strconv.Atoi(query.Get("limit"))
	if err != nil || limit < 1 || limit > 1000 {
		limit = 1000
	}
	page := found[min(max(offset, 0), len(found)):min(max(offset, 0)+limit, len(found))]
	rows := []any{}
	for _, o := range page {
		row := s.view(o)
		delete(row["certificate"].(map[string]any), "csr") // in order info alone
		rows = append(rows, row)
	}
	fakeca.JSON(w, http.StatusOK, map[string]any{"orders": rows, "page": map[string]int{"total": len(found), "limit": limit, "offset": offset}})
}

// taken reports whether an order has the reference, found or not.
func (s *Server) taken(reference string) bool {
	return len(s.core.Ledger(func(o *fakeca.Order) bool { return o.Reference == reference })) > 0
}

func (s *Server) byReference(reference string) []fakeca.Order {
	return s.core.Listed(func(o *fakeca.Order) bool { return o.Reference == reference })
}

func (s *Server) alternate(w http.ResponseWriter, r *http.Request) {
	found := s.byReference(r.PathValue("reference"))
	if len(found) == 0 && s.mode().NoneIsNotFound {
		s.fail(w, http.StatusNotFound, "not_found|order", "No order has this alternative order ID.")
		return
	}
	fakeca.JSON(w, http.StatusOK, map[string]any{"orders": s.rows(found)})
}

func (s *Server) rows(orders []fakeca.Order) []any {
	rows := []any{}
	for _, o := range orders {
		row := map[string]any{"order_id": o.Number, "status": s.word(o)}
		if id := certificateID(o); id != 0 {
			row["certificate_id"] = id
		}
		rows = append(rows, row)
	}
	return rows
}

func (s *Server) changes(w http.ResponseWriter, r *http.Request) {
	minutes, _ := strconv.Atoi(r.URL.Query().Get("minutes"))
	seconds, _ := strconv.Atoi(r.URL.Query().Get("seconds"))
	span := time.Duration(minutes)*time.Minute + time.Duration(seconds)*time.Second
	switch {
	case span <= 0:
		s.fail(w, http.StatusBadRequest, "bad_request_format", "minutes or seconds is required.")
		return
	case span > furthest:
		s.fail(w, http.StatusBadRequest, "time_frame_too_long", "The time frame is longer than a week.")
		return
	}
	since := s.core.Now().Add(-span)
	changed := slices.DeleteFunc(s.core.Listed(nil), func(o fakeca.Order) bool { return o.ChangedAt.Before(since) })
	if len(changed) == 0 {
		fakeca.JSON(w, http.StatusOK, map[string]any{})
		return
	}
	fakeca.JSON(w, http.StatusOK, map[string]any{"orders": s.rows(changed)})
}
