package globalsign

import (
	"crypto/rand"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
)

// What a policy says of a field.
const (
	required  = "REQUIRED"
	optional  = "OPTIONAL"
	forbidden = "FORBIDDEN"
	static    = "STATIC"
)

// States of a claim.
const (
	pending  = "PENDING"
	verified = "VERIFIED"
)

const day = 24 * time.Hour

func (m Modes) presences() map[string]string {
	all := map[string]string{"common_name": optional, "organization": static}
	maps.Copy(all, m.Presence)
	return all
}

func (m Modes) maxNames() int {
	if m.MaxNames > 0 {
		return m.MaxNames
	}
	return 100
}

func (s *Server) policy(w http.ResponseWriter, _ *http.Request) {
	modes := s.mode()
	subject := map[string]any{}
	for name, presence := range modes.presences() {
		subject[name] = map[string]string{"presence": presence, "format": "^.+$"}
	}
	list := func(static bool, most int, of ...string) map[string]any {
		return map[string]any{"static": static, "list": of, "mincount": 0, "maxcount": most}
	}
	chosen, signed, format := optional, forbidden, "PKCS10"
	if modes.SignatureChosen {
		chosen = required
	}
	if modes.KeySigned {
		signed = required
	}
	if modes.BareKey {
		format = "PKCS8"
	}
	reply(w, http.StatusOK, map[string]any{
		"validity":   map[string]any{"secondsmin": secondsMin, "secondsmax": secondsMax, "not_before_negative_skew": skew, "not_before_positive_skew": skew, "issuer_expiry": 0},
		"subject_dn": subject,
		"san": map[string]any{
			"dns_names": list(modes.StaticNames, modes.maxNames(), "^.+$"), "ip_addresses": list(false, 10, "^.+$"), "emails": list(false, 0), "uris": list(false, 0),
			"other_names": map[string]any{},
		},
		"extended_key_usages": map[string]any{"ekus": list(false, 2, `^1\.3\.6\.1\.5\.5\.7\.3\.[12]$`), "critical": false},
		"signature": map[string]any{
			"algorithm": map[string]any{"presence": chosen, "list": []string{"ECDSA", "RSA"}}, "hash_algorithm": map[string]any{"presence": chosen, "list": []string{"SHA-256"}},
		},
		"public_key":           map[string]any{"key_type": "ECDSA", "allowed_lengths": []int{256, 384}, "key_format": format},
		"public_key_signature": signed,
		"custom_extensions":    map[string]any{},
	})
}

func (s *Server) quota(w http.ResponseWriter, _ *http.Request) {
	left := quota - len(s.core.Ledger(nil))
	if s.mode().QuotaSpent {
		left = 0
	}
	reply(w, http.StatusOK, map[string]int{"value": left})
}

func (s *Server) counter(w http.ResponseWriter, r *http.Request) {
	counts := map[string]int{}
	for _, o := range s.core.Ledger(nil) {
		switch o.State {
		case fakeca.Issued:
			counts["issued"]++
		case fakeca.Revoked:
			counts["issued"]++
			counts["revoked"]++
		}
	}
	what := r.PathValue("what")
	if what != "issued" && what != "revoked" {
		s.fail(w, http.StatusNotFound, "No such counter", nil)
		return
	}
	reply(w, http.StatusOK, map[string]int{"value": counts[what]})
}

// claim is a domain that the account says it controls.
type claim struct {
	ID      string           `json:"id"`
	Status  string           `json:"status"`
	Token   string           `json:"token"`
	Domain  string           `json:"domain"` // with a dot at its end
	Created int64            `json:"created_at"`
	Expires int64            `json:"expires_at"`
	By      int64            `json:"assert_by"`
	Checked int64            `json:"last_verified_at"`
	Method  string           `json:"last_verification_method"`
	Log     []map[string]any `json:"log"`

	published bool
}

func (s *Server) newClaim(domain, status string) *claim {
	now := s.core.Now()
	c := &claim{
		ID: rand.Text(), Token: "globalsign-domain-verification=" + rand.Text(), Domain: strings.TrimSuffix(domain, ".") + ".", Status: pending,
		Created: now.Unix(), By: now.Add(30 * day).Unix(), Log: []map[string]any{},
	}
	if status == verified {
		c.verify(now)
	}
	return c
}

func (c *claim) verify(now time.Time) {
	c.Status, c.Checked, c.Method, c.Expires = verified, now.Unix(), "DNS", now.Add(397*day).Unix()
	c.note(now, "SUCCESS", "the token was found")
}

func (c *claim) note(now time.Time, status, text string) {
	c.Log = append(c.Log, map[string]any{"status": status, "description": text, "timestamp": now.Unix()})
}

// claimed reports whether a verified claim covers name.
func (s *Server) claimed(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.claims, func(c *claim) bool {
		return c.Status == verified && s.core.Now().Unix() < c.Expires && strings.HasSuffix("."+name+".", "."+c.Domain)
	})
}

// Publish has the token of a claim be found at the next assertion.
func (s *Server) Publish(domain string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.claims {
		if c.Domain == domain+"." {
			c.published = true
		}
	}
}

func (s *Server) listClaims(w http.ResponseWriter, r *http.Request) {
	status := r.URL.Query().Get("status")
	s.mu.Lock()
	found := []claim{}
	for _, c := range s.claims {
		if status == "" || c.Status == status {
			found = append(found, *c)
		}
	}
	s.mu.Unlock()
	reply(w, http.StatusOK, page(w, r, found))
}

func (s *Server) claimDomain(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	c := s.newClaim(r.PathValue("id"), pending)
	s.claims = append(s.claims, c)
	s.mu.Unlock()
	w.Header().Set("Location", Base+"/claims/domains/"+c.ID)
	reply(w, http.StatusCreated, map[string]any{"token": c.Token, "assert_by": c.By, "id": c.ID})
}

// onClaim runs act on the claim of the path, and answers what it returns.
func (s *Server) onClaim(w http.ResponseWriter, r *http.Request, act func(c *claim) (status int, body any)) {
	s.mu.Lock()
	at := slices.IndexFunc(s.claims, func(c *claim) bool { return c.ID == r.PathValue("id") })
	status, body := http.StatusNotFound, any(nil)
	if at >= 0 {
		status, body = act(s.claims[at])
	}
	s.mu.Unlock()
	switch {
	case at < 0:
		s.fail(w, status, "The claim is not known", nil)
	case body == nil:
		w.WriteHeader(status)
	default:
		reply(w, status, body)
	}
}

func (s *Server) showClaim(w http.ResponseWriter, r *http.Request) {
	s.onClaim(w, r, func(c *claim) (int, any) { return http.StatusOK, *c })
}

func (s *Server) deleteClaim(w http.ResponseWriter, r *http.Request) {
	s.onClaim(w, r, func(c *claim) (int, any) {
		s.claims = slices.DeleteFunc(s.claims, func(other *claim) bool { return other == c })
		return http.StatusNoContent, nil
	})
}

// assertClaim looks for the token, by DNS, HTTP or mail, or makes another one.
func (s *Server) assertClaim(w http.ResponseWriter, r *http.Request) {
	way := r.PathValue("way")
	if !slices.Contains([]string{"dns", "http", "email", "reassert"}, way) {
		s.fail(w, http.StatusNotFound, "No such way", nil)
		return
	}
	s.onClaim(w, r, func(c *claim) (int, any) {
		switch {
		case way == "reassert":
			c.Token, c.By = "globalsign-domain-verification="+rand.Text(), s.core.Now().Add(30*day).Unix()
			return http.StatusOK, map[string]any{"token": c.Token, "assert_by": c.By, "id": c.ID}
		case s.look(c):
			return http.StatusNoContent, nil
		}
		return http.StatusCreated, nil
	})
}

// Claim says that the account controls a domain, as a person does in the portal, and
// returns the claim's identity.
func (s *Server) Claim(domain string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.newClaim(domain, pending)
	s.claims = append(s.claims, c)
	return c.ID
}

// Assert has the authority look for the token of a claim.
func (s *Server) Assert(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.claims {
		if c.ID == id {
			s.look(c)
		}
	}
}

// look is whether the token is found. The lock is held.
func (s *Server) look(c *claim) bool {
	if c.published {
		c.verify(s.core.Now())
		return true
	}
	c.note(s.core.Now(), "ERROR", "the token was not found")
	return false
}
