package wire

import (
	"time"

	"github.com/certctl/certctl/shared/pki"
)

// EnrollRequest turns an enrolment token into an identity. The CSR's key is
// the identity's key; its subject and names are ignored, the coordinator
// decides them. Repeating the request with the same key gives the same answer,
// so a lost answer costs nothing.
type EnrollRequest struct {
	Protocol int        `json:"protocol"`
	Token    string     `json:"token"`
	CSR      []byte     `json:"csr"` // DER
	Host     HostReport `json:"host"`
	// Names are what the agent's configuration wants from brokered issuers, or
	// some of it where that is more than pki.MaxNames. An enrolment that would
	// not allow them is refused now, rather than at the first order.
	Names pki.Names `json:"names"`
}

// EnrollResponse is a new identity.
type EnrollResponse struct {
	AgentID string `json:"agent_id"`
	// Chain is PEM: the identity certificate first, then its issuers without
	// the root. Roots is PEM: what the agent trusts for this coordinator.
	Chain string `json:"chain"`
	Roots string `json:"roots"`
	// NamePatterns are the names that this enrolment may request through
	// brokered issuers; Labels were given by its token.
	NamePatterns []string          `json:"name_patterns,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	ServerTime   time.Time         `json:"server_time"`
}

// IdentityRequest asks for a new identity certificate for the key of the CSR.
// It is sent over a connection that proves the present identity, which may be
// expired but not retired. The present identity stays valid until the new one
// is first used.
type IdentityRequest struct {
	Protocol int    `json:"protocol"`
	CSR      []byte `json:"csr"` // DER
}

// IdentityResponse is the new identity. Fields as in EnrollResponse.
type IdentityResponse struct {
	Chain      string    `json:"chain"`
	Roots      string    `json:"roots"`
	ServerTime time.Time `json:"server_time"`
}
