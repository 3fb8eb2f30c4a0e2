package vault

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
)

// lookup tells of the token, itself among the rest.
func (s *Server) lookup(w http.ResponseWriter, r *http.Request) {
	modes := s.mode()
	data := map[string]any{
		"id": r.Header.Get("X-Vault-Token"), "accessor": "fake", "display_name": "token-certctl", "policies": []string{"default", "certctl"}, "path": "auth/token/create",
		"type": "service", "num_uses": modes.Uses, "ttl": 0, "expire_time": nil, "renewable": false, "orphan": true,
	}
	if modes.TokenTTL > 0 {
		data["ttl"], data["expire_time"] = int(modes.TokenTTL/time.Second), s.core.Now().Add(modes.TokenTTL).UTC().Format(time.RFC3339Nano)
	}
	answer(w, data)
}

// capabilities tells what the token may do with paths.
func (s *Server) capabilities(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Path  string   `json:"path"`
		Paths []string `json:"paths"`
	}
	err := json.NewDecoder(r.Body).Decode(&body)
	if body.Path != "" {
		body.Paths = append(body.Paths, body.Path)
	}
	if err != nil || len(body.Paths) == 0 {
		fail(w, http.StatusBadRequest, "paths must be supplied")
		return
	}
	data := map[string]any{}
	for _, path := range body.Paths {
		may := []string{"create", "list", "read", "update"}
		if slices.Contains(s.mode().Denied, strings.TrimPrefix(path, Mount+"/")) {
			may = []string{"deny"}
		}
		data[path], data["capabilities"] = may, may
	}
	answer(w, data)
}

// health asks nobody who they are, and knows no namespace but the root.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Vault-Namespace") != "" {
		fail(w, http.StatusBadRequest, "unsupported path")
		return
	}
	status, modes := http.StatusOK, s.mode()
	if modes.Sealed {
		status = http.StatusServiceUnavailable
		if code, err := strconv.Atoi(r.URL.Query().Get("sealedcode")); err == nil {
			status = code
		}
	}
	fakeca.JSON(w, status, map[string]any{
		"initialized": true, "sealed": modes.Sealed, "standby": false, "performance_standby": false, "version": "1.19.0", "cluster_name": "fake",
		"server_time_utc": s.core.Now().Add(-modes.Behind).Unix(),
	})
}

func (s *Server) maxTTL() time.Duration {
	if ttl := s.mode().MaxTTL; ttl > 0 {
		return ttl
	}
	return 10 * 365 * 24 * time.Hour
}

func (s *Server) role(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("role") != Role {
		fail(w, http.StatusNotFound)
		return
	}
	answer(w, map[string]any{
		"allow_any_name": true, "allow_ip_sans": true, "allowed_domains": []string{}, "key_type": "any", "key_bits": 0, "max_ttl": int(s.maxTTL() / time.Second), "ttl": 0,
		"no_store": s.mode().NoStore, "require_cn": false, "use_csr_common_name": true, "use_csr_sans": true, "issuer_ref": "default",
	})
}

// shown are the intermediates, the one that signs first, without the root.
func (s *Server) shown() []*x509.Certificate { return s.core.WithoutRoot(s.core.Issuers()) }

func issuerID(cert *x509.Certificate) string { return "issuer-" + cert.SerialNumber.Text(16)[:8] }

func (s *Server) issuers(w http.ResponseWriter, r *http.Request) {
	if s.mode().Old {
		fail(w, http.StatusNotFound, "1 error occurred:\n\t* unsupported path\n\n")
		return
	}
	keys := []string{}
	for _, cert := range s.shown() {
		keys = append(keys, issuerID(cert))
	}
	answer(w, map[string]any{"keys": keys})
}

func (s *Server) issuer(w http.ResponseWriter, r *http.Request) {
	list := s.shown()
	at := slices.IndexFunc(list, func(cert *x509.Certificate) bool { return issuerID(cert) == r.PathValue("ref") })
	if r.PathValue("ref") == "default" {
		at = 0
	}
	switch {
	case s.mode().Old:
		fail(w, http.StatusNotFound, "1 error occurred:\n\t* unsupported path\n\n")
	case at < 0:
		fail(w, http.StatusBadRequest, "unable to find PKI issuer for reference: "+r.PathValue("ref"))
	default:
		answer(w, map[string]any{
			"issuer_id": issuerID(list[at]), "issuer_name": "", "certificate": text(list[at]), "ca_chain": []string{text(list[at]), text(s.core.Root())},
		})
	}
}
