package sectigo

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
)

// collectOrDCV tells two paths apart that the server's patterns cannot.
func (s *Server) collectOrDCV(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.PathValue("a") == "collect":
		r.SetPathValue("id", r.PathValue("b"))
		s.collect(w, r)
	case r.PathValue("b") == "dcv":
		r.SetPathValue("id", r.PathValue("a"))
		s.dcv(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) collect(w http.ResponseWriter, r *http.Request) {
	o, ok := s.found(w, r.PathValue("id"))
	if !ok {
		return
	}
	format := r.PathValue("format")
	if format == "" {
		format = r.URL.Query().Get("format")
	}
	if o.State == fakeca.Revoked {
		s.fail(w, http.StatusBadRequest, -110, "The certificate is revoked")
		return
	}
	chain, ready, err := s.core.Collect(o.ID, 0)
	switch {
	case err != nil:
		s.fail(w, http.StatusInternalServerError, -1, err.Error())
		return
	case !ready:
		s.notReady(w)
		return
	}
	body, known := inFormat(format, chain)
	if !known {
		s.fail(w, http.StatusBadRequest, -126, "The format is not known")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="certificate"`)
	_, _ = w.Write(body)
}

func (s *Server) notReady(w http.ResponseWriter) {
	switch s.mode().NotReady {
	case Empty:
		w.Header().Set("Content-Type", "application/octet-stream")
		w.WriteHeader(http.StatusOK)
	case Processing:
		s.fail(w, http.StatusBadRequest, -1400, "Being processed")
	case NotFoundYet:
		s.fail(w, http.StatusBadRequest, -103, "The certificate is not there")
	default:
		s.fail(w, http.StatusBadRequest, -183, "The certificate is not collectable")
	}
}

// inFormat writes a chain, which begins with the leaf. In the vendor's own sample of
// x509 the root is the first and the leaf the last.
func inFormat(format string, chain []*x509.Certificate) ([]byte, bool) {
	leaves := slices.DeleteFunc(slices.Clone(chain), func(c *x509.Certificate) bool { return c.IsCA })
	issuers := slices.DeleteFunc(slices.Clone(chain), func(c *x509.Certificate) bool { return !c.IsCA })
	backwards := func(certs []*x509.Certificate) []*x509.Certificate {
		certs = slices.Clone(certs)
		slices.Reverse(certs)
		return certs
	}
	switch strings.ToLower(format) {
	case "x509", "pem":
		return fakeca.PEM(backwards(chain)), true
	case "x509r":
		return fakeca.PEM(chain), true
	case "x509co", "pemco":
		return fakeca.PEM(leaves), true
	case "pemia":
		return fakeca.PEM(append(leaves, issuers[:min(1, len(issuers))]...)), true
	case "x509io":
		return fakeca.PEM(backwards(issuers)), true
	case "x509ior":
		return fakeca.PEM(issuers), true
	case "", "base64":
		return pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: fakeca.PKCS7(chain)}), true
	case "bin":
		return fakeca.PKCS7(chain), true
	}
	return nil, false
}

type revokeBody struct {
	Code   int    `json:"reasonCode"`
	Reason string `json:"reason"`
}

func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	o, ok := s.found(w, r.PathValue("id"))
	if !ok {
		return
	}
	if o.Newest() == nil {
		s.fail(w, http.StatusBadRequest, -102, "The certificate is not issued")
		return
	}
	s.revokeOne(w, r, o, *o.Newest())
}

func (s *Server) revokeSerial(w http.ResponseWriter, r *http.Request) {
	o, cert, err := s.core.ByCertificate(r.PathValue("serial"))
	if err != nil {
		s.fail(w, http.StatusBadRequest, -169, "The serial number is not known")
		return
	}
	s.revokeOne(w, r, o, cert)
}

func (s *Server) revokeOne(w http.ResponseWriter, r *http.Request, o fakeca.Order, cert fakeca.Certificate) {
	var body revokeBody
	switch {
	case !s.read(w, r, &body):
	case !slices.Contains([]int{0, 1, 3, 4, 5}, body.Code) || body.Reason == "" || len(body.Reason) > 512:
		s.fail(w, http.StatusBadRequest, -3, "The reason is not valid")
	case !cert.RevokedAt.IsZero():
		s.fail(w, http.StatusBadRequest, -159, "The certificate is revoked already")
	default:
		_, err := s.core.Revoke(o.ID, cert.Number, body.Code)
		s.done(w, err)
	}
}

// replace has the order issue again, under the same id. Until it is there the
// certificate of before is handed out.
func (s *Server) replace(w http.ResponseWriter, r *http.Request) {
	var body struct {
		CSR    string   `json:"csr"`
		Reason string   `json:"reason"`
		Names  []string `json:"subjectAlternativeNames"`
	}
	o, ok := s.found(w, r.PathValue("id"))
	if !ok || !s.read(w, r, &body) {
		return
	}
	csr, sound := readCSR(body.CSR)
	if !sound {
		s.fail(w, http.StatusBadRequest, -138, "The CSR is not valid")
		return
	}
	s.done(w, s.core.Reissue(o.ID, csr, namesOf(csr, strings.Join(body.Names, ","))))
}

func (s *Server) renew(w http.ResponseWriter, r *http.Request) {
	var body struct {
		CSR string `json:"csr"`
	}
	o, ok := s.found(w, r.PathValue("id"))
	if !ok || !s.read(w, r, &body) {
		return
	}
	csr, sound := readCSR(body.CSR)
	if body.CSR == "" {
		var err error
		csr, err = x509.ParseCertificateRequest(o.CSR) // with the key of before
		sound = err == nil
	}
	if !sound {
		s.fail(w, http.StatusBadRequest, -138, "The CSR is not valid")
		return
	}
	s.accept(w, &enrollBody{Names: strings.Join(o.Names, ","), Term: Terms[0], Comments: o.Extra["comments"]}, csr, s.mode())
}

func (s *Server) dcv(w http.ResponseWriter, r *http.Request) {
	o, ok := s.found(w, r.PathValue("id"))
	if !ok {
		return
	}
	waits := o.Extra["unproven"] != "" && o.State == fakeca.Waiting
	log, instructions := []any{}, []any{}
	for _, name := range o.Names {
		entry := map[string]any{"domainName": name, "dcvStatus": "Validated", "lastCheck": s.core.Now().UTC().Format(time.RFC3339)}
		if waits {
			entry["dcvStatus"], entry["nextCheck"] = "Awaiting Validation", s.core.Now().Add(time.Hour).UTC().Format(time.RFC3339)
			instructions = append(instructions, map[string]any{
				"domainName": name, "dcvMode": "CNAME", "host": "_abc." + name, "point": "def.fake.example",
			})
		}
		log = append(log, entry)
	}
	fakeca.JSON(w, http.StatusOK, map[string]any{"dcvLog": map[string]any{"log": log}, "instructions": instructions})
}

func (s *Server) recheck(w http.ResponseWriter, r *http.Request) {
	o, ok := s.found(w, r.PathValue("id"))
	if !ok {
		return
	}
	if o.Extra["published"] != "" && o.State == fakeca.Waiting {
		_ = s.core.Approve(o.ID)
	}
	w.WriteHeader(http.StatusAccepted)
}
