package resource

import "time"

// CA is the built-in certificate authority and how far agents have followed it.
type CA struct {
	ClusterID   string      `json:"cluster_id" doc:"Stands in the identities of agents. It never changes."`
	Authorities []Authority `json:"authorities" nullable:"false"`
	// TrustGeneration counts the changes of what agents trust.
	TrustGeneration int      `json:"trust_generation" doc:"Newest generation of trust; each change of the trusted roots is one."`
	Rotation        Rotation `json:"rotation" doc:"Where the rotation of the root stands."`
	// RevocationList is absent until the first one is published.
	RevocationList *RevocationList `json:"revocation_list,omitempty" doc:"The newest list; each issuing CA signs its own of this number."`
	RootsPEM       string          `json:"roots_pem" doc:"The roots that agents and API clients have to trust now, in PEM."`
}

// Authority is one CA certificate.
type Authority struct {
	Name        string    `json:"name" enum:"root,identity,issuing"`
	State       string    `json:"state" enum:"active,published,retiring,retired" doc:"active signs; published is learnt by agents and does not sign yet; retiring is still trusted and does not sign any more; retired is kept for what it has signed."`
	Subject     string    `json:"subject"`
	Serial      string    `json:"serial"`
	Fingerprint string    `json:"fingerprint"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	CRLPath     string    `json:"crl_path,omitempty" doc:"Where this coordinator serves the revocation list of an issuing CA."`
	CRLURL      string    `json:"crl_url,omitempty" doc:"Where its certificates say that the list is; absent if they name none."`
}

// RevocationList is the newest revocation list of the built-in CA.
type RevocationList struct {
	Number     uint64    `json:"number"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update" doc:"Until when the list is good. A new one comes at least once a day."`
	Revoked    int       `json:"revoked" doc:"Certificates that are revoked and have not expired, or not been on a list since."`
	Behind     bool      `json:"behind" doc:"Something was revoked since; the next list comes within half a minute."`
}

// Rotation is where the rotation of the root stands.
type Rotation struct {
	NextStep     string        `json:"next_step" enum:"publish,activate,retire" doc:"What a rotation of the root would do next. publish: no rotation is under way."`
	AgentsBehind int           `json:"agents_behind" doc:"Active agents that have not reported the newest generation of trust."`
	Behind       []AgentBehind `json:"behind" nullable:"false" doc:"The first hundred of them."`
}

// AgentBehind is an agent that does not go by the newest generation of trust.
type AgentBehind struct {
	ID              string    `json:"id"`
	Hostname        string    `json:"hostname"`
	TrustGeneration uint64    `json:"trust_generation" doc:"The last one that it reported; 0 if none, or if it is none of this chain."`
	LastSeen        time.Time `json:"last_seen"`
}

// RotateCA asks for one step of a rotation.
type RotateCA struct {
	Authority string `json:"authority" enum:"root,issuing,identity" doc:"Which authority. The root takes the steps publish, activate and retire; the others are replaced in one step."`
	Step      string `json:"step,omitempty" enum:"publish,activate,retire" doc:"Step of the root's rotation; absent is publish. Not for the others."`
	Force     bool   `json:"force,omitempty" doc:"Activate or retire although active agents have not reported the newest generation of trust. They follow the signed chain when they come back."`
}
