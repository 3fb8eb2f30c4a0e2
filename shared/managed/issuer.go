package managed

import (
	"regexp"
	"strings"
)

// CoordinatorIssuer is the name of the issuer that every agent has: the built-in CA
// of its coordinator. Followed by a slash and a name it is an authority that the
// coordinator speaks with, by the name that it has in the coordinator's settings.
const CoordinatorIssuer = "coordinator"

// issuerName is how the coordinator's settings name an issuer: a label of a DNS name
// (RFC 1035, section 2.3.1) in lower case.
var issuerName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ValidIssuerName reports whether an issuer of the coordinator's may have a name.
func ValidIssuerName(name string) bool { return issuerName.MatchString(name) }

// Brokered reports whether an issuer of a certificate is asked by way of the
// coordinator, and what it is called there; "" is the built-in CA.
func Brokered(issuer string) (name string, ok bool) {
	if issuer == CoordinatorIssuer {
		return "", true
	}
	name, ok = strings.CutPrefix(issuer, CoordinatorIssuer+"/")
	return name, ok && ValidIssuerName(name)
}

// Brokered reports whether any of the certificate's issuers is asked by way of the
// coordinator.
func (c *Certificate) Brokered() bool {
	for _, issuer := range c.Issuers() {
		if _, ok := Brokered(issuer); ok {
			return true
		}
	}
	return false
}
