package resource

import "time"

// TokenState says whether a token can be used, at the time of the answer.
type TokenState string

// States of enrolment tokens and of API tokens.
const (
	TokenUsable  TokenState = "usable"
	TokenUsed    TokenState = "used" // all uses of an enrolment token are spent
	TokenExpired TokenState = "expired"
	TokenRevoked TokenState = "revoked"
)

// EnrollmentToken is an enrolment token without its secret.
type EnrollmentToken struct {
	ID           string            `json:"id"`
	State        TokenState        `json:"state" enum:"usable,used,expired,revoked"`
	Description  string            `json:"description,omitempty"`
	Labels       map[string]string `json:"labels" doc:"Given to the agents that enrol with it."`
	NamePatterns []string          `json:"name_patterns" nullable:"false" doc:"Names that these agents may order from brokered issuers."`
	MaxUses      uint32            `json:"max_uses" doc:"0 is unlimited."`
	Uses         uint32            `json:"uses"`
	CreatedAt    time.Time         `json:"created_at"`
	CreatedBy    string            `json:"created_by"`
	ExpiresAt    time.Time         `json:"expires_at"`
	RevokedAt    time.Time         `json:"revoked_at,omitzero"`
	RevokedBy    string            `json:"revoked_by,omitempty"`
}

// The longest lifetimes of tokens; ttl_seconds has the same bounds.
const (
	MaxEnrollmentTTL = 365 * 24 * time.Hour
	MaxAPITokenTTL   = 3650 * 24 * time.Hour
	MaxTokenUses     = 1_000_000
)

// CreateEnrollmentToken asks for an enrolment token.
type CreateEnrollmentToken struct {
	Description  string            `json:"description,omitempty" maxLength:"200"`
	Labels       map[string]string `json:"labels,omitempty" doc:"At most 32; keys and values as in label=value filters." example:"{\"env\":\"prod\"}"`
	NamePatterns []string          `json:"name_patterns,omitempty" maxItems:"100" doc:"What the agents may order from brokered issuers: web1.example.com, *.example.com (one label), **.example.com (any depth, wildcards too), =*.example.com (the wildcard name), 192.0.2.7, 10.0.0.0/8. None allows no orders." example:"[\"*.example.com\"]"`
	MaxUses      *uint32           `json:"max_uses,omitempty" maximum:"1000000" doc:"How many agents may enrol with it; 0 is unlimited, absent is 1."`
	TTLSeconds   int64             `json:"ttl_seconds,omitempty" minimum:"60" maximum:"31536000" doc:"Lifetime; absent is one hour."`
}

// CreatedEnrollmentToken is the one answer that has the token itself.
type CreatedEnrollmentToken struct {
	EnrollmentToken
	Token         string `json:"token" doc:"The whole token. It is shown this once; only its hash is kept."`
	EnrollCommand string `json:"enroll_command" doc:"What to run on the host, with the token on its standard input."`
	Warning       string `json:"warning,omitempty" doc:"Why hosts may be unable to use the token as things are, and what to change."`
}

// APIToken is an API token without its secret.
type APIToken struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Role      string     `json:"role" enum:"viewer,operator,admin"`
	State     TokenState `json:"state" enum:"usable,expired,revoked"`
	CreatedAt time.Time  `json:"created_at"`
	CreatedBy string     `json:"created_by"`
	ExpiresAt time.Time  `json:"expires_at,omitzero" doc:"Absent: never."`
	RevokedAt time.Time  `json:"revoked_at,omitzero"`
}

// CreateAPIToken asks for an API token.
type CreateAPIToken struct {
	Name       string `json:"name" minLength:"1" maxLength:"100" doc:"Who or what uses it."`
	Role       string `json:"role" enum:"viewer,operator,admin" doc:"viewer reads; operator also enrols and retires agents; admin also makes API tokens."`
	TTLSeconds int64  `json:"ttl_seconds,omitempty" minimum:"60" maximum:"315360000" doc:"Lifetime; absent never expires."`
}

// CreatedAPIToken is the one answer that has the token itself.
type CreatedAPIToken struct {
	APIToken
	Token string `json:"token" doc:"The whole token. It is shown this once; only its hash is kept."`
}

// Identified is who the request's token belongs to.
type Identified struct {
	TokenID   string    `json:"token_id"`
	Name      string    `json:"name"`
	Role      string    `json:"role" enum:"viewer,operator,admin"`
	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"Absent: never."`
}
