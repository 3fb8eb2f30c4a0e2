package vault

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
)

// colons is a serial number as the vendor writes it.
func colons(serial *big.Int) string {
	var parts []string
	for _, octet := range serial.Bytes() {
		parts = append(parts, hex.EncodeToString([]byte{octet}))
	}
	return strings.Join(parts, ":")
}

// text is a certificate as PEM, without the end of the last line.
func text(cert *x509.Certificate) string {
	return strings.TrimSpace(string(fakeca.PEM([]*x509.Certificate{cert})))
}

type signBody struct {
	CSR        string          `json:"csr"`
	CommonName string          `json:"common_name"`
	Names      string          `json:"alt_names"`
	IPs        string          `json:"ip_sans"`
	TTL        json.RawMessage `json:"ttl"`
	Format     string          `json:"format"`
	ExcludeCN  bool            `json:"exclude_cn_from_sans"`
}

// lasts is a duration as a number of seconds, or in Go's form.
func lasts(raw json.RawMessage) (time.Duration, error) {
	word := strings.Trim(string(raw), `"`)
	if word == "" || word == "null" {
		return 0, nil
	}
	if seconds, err := strconv.Atoi(word); err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	return time.ParseDuration(word)
}

func split(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ","), func(name string) bool { return name == "" })
}

// names are the CSR's, which a role prefers to the order's where it is not told not to.
func (b *signBody) names(csr *x509.CertificateRequest) []string {
	names := slices.Clone(csr.DNSNames)
	for _, ip := range csr.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = append(split(b.Names), split(b.IPs)...)
	}
	if b.CommonName != "" && !b.ExcludeCN && !slices.Contains(names, b.CommonName) {
		names = append(names, b.CommonName)
	}
	return names
}

func (s *Server) sign(w http.ResponseWriter, r *http.Request) {
	var body signBody
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		fail(w, http.StatusBadRequest, "error parsing JSON")
		return
	}
	var csr *x509.CertificateRequest
	if block, _ := pem.Decode([]byte(body.CSR)); block != nil {
		csr, _ = x509.ParseCertificateRequest(block.Bytes) // nil is refused below
	}
	ttl, err := lasts(body.TTL)
	modes := s.mode()
	switch {
	case r.PathValue("role") != Role:
		fail(w, http.StatusBadRequest, "unknown role: "+r.PathValue("role"))
	case csr == nil || csr.CheckSignature() != nil:
		fail(w, http.StatusBadRequest, "certificate request could not be parsed")
	case err != nil:
		fail(w, http.StatusBadRequest, "error converting input for field \"ttl\"")
	case body.Format != "" && body.Format != "pem":
		fail(w, http.StatusBadRequest, `the "format" path parameter must be "pem", "der", or "pem_bundle"`)
	case modes.ControlGroup:
		fakeca.JSON(w, http.StatusOK, map[string]any{"data": nil, "wrap_info": map[string]any{"token": "hvs.wrapping", "accessor": "fake", "ttl": 3600}})
	default:
		s.accept(w, r, &body, csr, ttl)
	}
}

func (s *Server) accept(w http.ResponseWriter, r *http.Request, body *signBody, csr *x509.CertificateRequest, ttl time.Duration) {
	var warnings []string
	if most := s.maxTTL(); ttl > most {
		warnings = append(warnings, fmt.Sprintf("TTL %q is longer than permitted maxTTL %q, so maxTTL is being used", ttl, most))
		ttl = most
	}
	serial := s.core.NewSerial()
	o, err := s.core.Accept(fakeca.Placement{ID: colons(serial), Serial: serial, CSR: csr, CommonName: body.CommonName, Names: body.names(csr), Validity: ttl, Extra: map[string]string{
		"issuer": r.PathValue("ref"),
	}})
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	chain, ready, err := s.core.Collect(o.ID, 0)
	if err != nil || !ready {
		fail(w, http.StatusInternalServerError, "internal error")
		return
	}
	leaf, rest := parts(o, chain)
	data := map[string]any{"certificate": text(leaf), "serial_number": o.ID, "expiration": leaf.NotAfter.Unix()}
	list := []string{}
	for _, cert := range rest {
		list = append(list, text(cert))
	}
	if len(list) > 0 {
		data["issuing_ca"] = list[0]
	}
	if !s.mode().NoChain {
		data["ca_chain"] = list
	}
	answer(w, data, warnings...)
}

// parts are the certificate of an order, and whatever else comes with it.
func parts(o fakeca.Order, certs []*x509.Certificate) (leaf *x509.Certificate, rest []*x509.Certificate) {
	at := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return colons(c.SerialNumber) == o.ID })
	if at < 0 {
		at = slices.IndexFunc(certs, func(c *x509.Certificate) bool { return !c.IsCA })
	}
	return certs[at], slices.Delete(slices.Clone(certs), at, at+1)
}

// list tells the serial numbers in their own order, which is not that of time.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	modes, query := s.mode(), r.URL.Query()
	keys := []string{}
	for _, o := range s.core.Listed(nil) {
		keys = append(keys, o.ID)
	}
	slices.Sort(keys)
	if r.Method == http.MethodGet && query.Get("list") != "true" || modes.NoStore {
		fail(w, http.StatusNotFound)
		return
	}
	if limit, err := strconv.Atoi(query.Get("limit")); modes.Pages && err == nil && limit > 0 {
		// They are kept, and compared, with hyphens.
		keys = slices.DeleteFunc(keys, func(key string) bool { return strings.ReplaceAll(key, ":", "-") <= query.Get("after") })
		keys = keys[:min(limit, len(keys))]
	}
	if len(keys) == 0 {
		fail(w, http.StatusNotFound)
		return
	}
	answer(w, map[string]any{"keys": keys})
}

// stored is the order of a certificate that is kept.
func (s *Server) stored(serial string) (fakeca.Order, bool) {
	o, err := s.core.Order(strings.ToLower(strings.ReplaceAll(serial, "-", ":")))
	return o, err == nil && o.Newest() != nil && !s.mode().NoStore
}

func (s *Server) certificate(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("serial") == "ca_chain" {
		chain := s.core.Issuers()
		answer(w, map[string]any{"certificate": strings.TrimSpace(string(fakeca.PEM([]*x509.Certificate{chain[0], s.core.Root()}))), "revocation_time": 0})
		return
	}
	o, ok := s.stored(r.PathValue("serial"))
	if !ok {
		fail(w, http.StatusNotFound)
		return
	}
	chain, ready, err := s.core.Collect(o.ID, 0)
	if err != nil || !ready {
		fail(w, http.StatusInternalServerError, "internal error")
		return
	}
	leaf, _ := parts(o, chain)
	data := map[string]any{"certificate": text(leaf), "revocation_time": 0, "revocation_time_rfc3339": ""}
	if at := o.Newest().RevokedAt; !at.IsZero() {
		data["revocation_time"], data["revocation_time_rfc3339"] = at.Unix(), at.UTC().Format(time.RFC3339Nano)
	}
	answer(w, data)
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Serial string `json:"serial_number"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Serial == "" {
		fail(w, http.StatusBadRequest, "The serial number or certificate to revoke must be provided.")
		return
	}
	o, ok := s.stored(body.Serial)
	switch {
	case !ok:
		fail(w, http.StatusBadRequest, "certificate with serial "+body.Serial+" not found.")
		return
	case s.core.Now().After(o.Newest().Leaf.NotAfter):
		answer(w, nil, "certificate with serial "+o.ID+" already expired; refusing to add to CRL")
		return
	}
	if _, err := s.core.Revoke(o.ID, o.Newest().Number, 0); err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	o, _ = s.core.Order(o.ID) // it was there
	answer(w, map[string]any{"revocation_time": o.Newest().RevokedAt.Unix(), "revocation_time_rfc3339": o.Newest().RevokedAt.UTC().Format(time.RFC3339Nano), "state": "revoked"})
}
