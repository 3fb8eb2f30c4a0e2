package globalsign

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
)

// Bounds of the policy, in seconds.
const (
	secondsMin = 3600
	secondsMax = 397 * 24 * 3600
	skew       = 120
)

// quota is how many certificates the account may have.
const quota = 100_000

type orderBody struct {
	Validity struct {
		NotBefore int64 `json:"not_before"`
		NotAfter  int64 `json:"not_after"`
	} `json:"validity"`
	Subject map[string]any `json:"subject_dn"`
	SAN     *struct {
		DNS []string `json:"dns_names"`
		IP  []string `json:"ip_addresses"`
	} `json:"san"`
	Usages    []string `json:"extended_key_usages"`
	Key       string   `json:"public_key"`
	KeySigned string   `json:"public_key_signature"`
	Signature *struct {
		Algorithm string `json:"algorithm"`
		Hash      string `json:"hash_algorithm"`
	} `json:"signature"`
	CSR string `json:"csr"` // there is no such field
}

// keyOf reads a public key, which is a request or a key alone.
func keyOf(text string, bare bool) (key crypto.PublicKey, ok bool) {
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil || len(strings.TrimSpace(string(rest))) > 0:
		return nil, false
	case bare:
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		return key, err == nil && block.Type == "PUBLIC KEY"
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || block.Type != "CERTIFICATE REQUEST" || csr.CheckSignature() != nil {
		return nil, false
	}
	return csr.PublicKey, true
}

// wrong is what the policy has against an order, by field.
func (s *Server) wrong(body *orderBody, modes Modes) map[string]string {
	fields := map[string]string{}
	now := s.core.Now().Unix()
	v := body.Validity
	if v.NotBefore < now-skew || v.NotBefore > now+skew {
		fields["validity.not_before"] = fmt.Sprintf("%d is not within %d seconds of now", v.NotBefore, skew)
	}
	if lasts := v.NotAfter - v.NotBefore; v.NotAfter != 0 && (lasts < secondsMin || lasts > secondsMax) {
		fields["validity.not_after"] = "the certificate would last too long, or not long enough"
	}
	for name, presence := range modes.presences() {
		_, has := body.Subject[name]
		if presence == required && !has || (presence == forbidden || presence == static) && has {
			fields["subject_dn."+name] = "this field is " + presence
		}
	}
	for name := range body.Subject {
		if modes.presences()[name] == "" {
			fields["subject_dn."+name] = "this field is " + forbidden
		}
	}
	switch {
	case modes.StaticNames && body.SAN != nil:
		fields["san"] = "this field is " + static
	case !modes.StaticNames && (body.SAN == nil || len(body.SAN.DNS)+len(body.SAN.IP) == 0):
		fields["san"] = "there is no name"
	case !modes.StaticNames && len(body.SAN.DNS) > modes.maxNames():
		fields["san.dns_names"] = "there are too many"
	case !modes.StaticNames && modes.ClaimsNeeded:
		for _, name := range body.SAN.DNS {
			if !s.claimed(name) {
				fields["san.dns_names"] = "no verified claim covers " + name
			}
		}
	}
	if (body.Signature != nil && body.Signature.Algorithm == "ECDSA" && body.Signature.Hash == "SHA-256") != modes.SignatureChosen {
		fields["signature"] = "this field is needed by some policies and not by others"
	}
	if body.KeySigned != "" {
		fields["public_key_signature"] = "this field is " + forbidden
	}
	if body.CSR != "" {
		fields["csr"] = "there is no such field"
	}
	return fields
}

func (s *Server) order(w http.ResponseWriter, r *http.Request) {
	var body orderBody
	if !s.read(w, r, &body) {
		return
	}
	modes := s.mode()
	key, sound := keyOf(body.Key, modes.BareKey)
	fields := s.wrong(&body, modes)
	if !sound {
		fields["public_key"] = "it is not in the format of the policy"
	}
	switch {
	case len(fields) > 0:
		s.fail(w, http.StatusUnprocessableEntity, "The request does not fit the policy", fields)
		return
	case modes.QuotaSpent:
		s.fail(w, http.StatusUnprocessableEntity, "The issuance quota is exhausted", nil)
		return
	}
	names := []string{"static.example.com"}
	if body.SAN != nil {
		names = append(slices.Clone(body.SAN.DNS), body.SAN.IP...)
	}
	name, _ := body.Subject["common_name"].(string)
	lasts := secondsMax * time.Second
	if body.Validity.NotAfter != 0 {
		lasts = time.Unix(body.Validity.NotAfter, 0).Sub(s.core.Now())
	}
	serial := s.core.NewSerial()
	o, err := s.core.Accept(fakeca.Placement{
		ID: strings.ToUpper(serial.Text(16)), Serial: serial, PublicKey: key, CommonName: name, Names: names, Validity: lasts,
	})
	if err != nil {
		s.fail(w, http.StatusUnprocessableEntity, err.Error(), nil)
		return
	}
	location := Base + "/certificates/" + o.ID
	if !modes.RelativeLocation {
		location = "https://" + r.Host + location
	}
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusCreated)
}

func (s *Server) found(w http.ResponseWriter, r *http.Request) (fakeca.Order, bool) {
	o, err := s.core.Order(strings.ToUpper(r.PathValue("serial")))
	s.mu.Lock()
	s.asked[o.ID]++
	early := s.asked[o.ID] <= s.modes.UnknownAtFirst
	s.mu.Unlock()
	if err != nil || early {
		s.fail(w, http.StatusNotFound, "The serial number is not known", nil)
		return o, false
	}
	return o, true
}

// certificate is the state and the certificate in one.
func (s *Server) certificate(w http.ResponseWriter, r *http.Request) {
	o, ok := s.found(w, r)
	if !ok {
		return
	}
	body := map[string]any{"certificate": "", "status": "ISSUED", "updated_at": o.ChangedAt.Unix()}
	if word := s.core.Word(o.ID); word != "" {
		body["status"] = word
		reply(w, http.StatusOK, body)
		return
	}
	chain, ready, err := s.core.Collect(o.ID, 0)
	switch {
	case err != nil:
		s.fail(w, http.StatusInternalServerError, err.Error(), nil)
		return
	case !ready && !s.mode().IssuedIsDone:
		w.WriteHeader(http.StatusAccepted)
		return
	case o.State == fakeca.Revoked:
		body["status"] = "REVOKED"
	}
	body["certificate"] = string(fakeca.PEM(slices.DeleteFunc(chain, func(c *x509.Certificate) bool { return c.IsCA })))
	reply(w, http.StatusOK, body)
}

// reasons of a revocation, by their codes of RFC 5280 section 5.3.1.
var reasons = map[string]int{
	"unspecified": 0, "keyCompromise": 1, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5, "privilegeWithdrawn": 9,
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Reason string `json:"revocation_reason"`
		Time   int64  `json:"revocation_time"`
	}
	o, ok := s.found(w, r)
	if !ok || !s.read(w, r, &body) {
		return
	}
	reason, known := reasons[body.Reason]
	switch {
	case !known:
		s.fail(w, http.StatusUnprocessableEntity, "The request does not fit", map[string]string{"revocation_reason": "it is not known"})
	case o.Newest() == nil:
		s.fail(w, http.StatusUnprocessableEntity, "The certificate is not issued", nil)
	case !o.Newest().RevokedAt.IsZero():
		s.fail(w, http.StatusUnprocessableEntity, "The certificate is revoked already", nil)
	default:
		if _, err := s.core.Revoke(o.ID, o.Newest().Number, reason); err != nil {
			s.fail(w, http.StatusInternalServerError, err.Error(), nil)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) trustChain(w http.ResponseWriter, _ *http.Request) {
	issuers := s.core.Issuers()
	s.mu.Lock()
	s.chains++
	old, turned := s.chains <= s.modes.OldTrustChain, s.modes.TurnedTrustChain
	s.mu.Unlock()
	if old {
		issuers = issuers[len(issuers)-2:]
	} else {
		issuers = []*x509.Certificate{issuers[0], issuers[len(issuers)-1]}
	}
	if turned {
		slices.Reverse(issuers)
	}
	list := []string{}
	for _, cert := range issuers {
		list = append(list, string(fakeca.PEM([]*x509.Certificate{cert})))
	}
	reply(w, http.StatusOK, list)
}

// page is the part of a list that is asked for.
func page[T any](w http.ResponseWriter, r *http.Request, list []T) []T {
	number, _ := strconv.Atoi(r.URL.Query().Get("page"))
	size, err := strconv.Atoi(r.URL.Query().Get("per_page"))
	if err != nil || size < 1 || size > 100 {
		size = 20
	}
	w.Header().Set("Total-Count", strconv.Itoa(len(list)))
	from := min(max(number-1, 0)*size, len(list))
	return list[from:min(from+size, len(list))]
}

// issued lists what was issued in a span of time, without names and keys.
func (s *Server) issued(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	to, other := strconv.ParseInt(r.URL.Query().Get("to"), 10, 64)
	if err != nil || other != nil || from > to {
		s.fail(w, http.StatusUnprocessableEntity, "The span of time is not valid", nil)
		return
	}
	found := slices.DeleteFunc(s.core.Listed(nil), func(o fakeca.Order) bool {
		newest := o.Newest()
		return newest == nil || newest.IssuedAt.Unix() < from || newest.IssuedAt.Unix() > to
	})
	rows := []any{}
	for _, o := range page(w, r, found) {
		leaf := o.Newest().Leaf
		rows = append(rows, map[string]any{"serial_number": o.ID, "not_before": leaf.NotBefore.Unix(), "not_after": leaf.NotAfter.Unix()})
	}
	reply(w, http.StatusOK, rows)
}
