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
	// Scope limits what it may see and do.
	Scope        []string  `json:"scope,omitempty" doc:"The labels of the hosts that it is limited to: all of them, with one of the values that are given for each. Absent: all hosts, and what is of none." example:"[\"env=prod\"]"`
	FixedExpiry  bool      `json:"fixed_expiry,omitempty" doc:"A rotation does not put off the end."`
	RotatedAt    time.Time `json:"rotated_at,omitzero" doc:"When it got the secret that it has. Absent: when it was made."`
	RotatedBy    string    `json:"rotated_by,omitempty"`
	EarlierUntil time.Time `json:"earlier_until,omitzero" doc:"Up to when the secret of before the last rotation is good too. Absent: it is not."`
}

// CreateAPIToken asks for an API token.
type CreateAPIToken struct {
	Name       string `json:"name" minLength:"1" maxLength:"100" doc:"Who or what uses it."`
	Role       string `json:"role" enum:"viewer,operator,admin" doc:"viewer reads; operator also enrols and retires agents; admin also makes API tokens."`
	TTLSeconds int64  `json:"ttl_seconds,omitempty" minimum:"60" maximum:"315360000" doc:"Lifetime; absent never expires. A rotation begins it anew."`
	// Scope limits what it may see and do.
	Scope       []string `json:"scope,omitempty" maxItems:"128" doc:"Limits it to hosts by their labels, as label=value: all labels have to match, and of several values for one label one. Such a token is refused what is about more than some hosts. Absent: no limit." example:"[\"env=prod\",\"region=eu\"]"`
	FixedExpiry bool     `json:"fixed_expiry,omitempty" doc:"A rotation does not put off the end that ttl_seconds gives."`
}

// The longest grace of a rotation, and what it is without one; grace_seconds has the
// same bounds.
const (
	MaxRotationGrace     = 7 * 24 * time.Hour
	DefaultRotationGrace = time.Hour
)

// RotateAPIToken asks for another secret.
type RotateAPIToken struct {
	GraceSeconds *int64 `json:"grace_seconds,omitempty" minimum:"0" maximum:"604800" doc:"How long the earlier secret stays good beside the new one. Absent: one hour. 0: it ends at once."`
	SecretSHA256 string `json:"secret_sha256,omitempty" pattern:"^[0-9a-f]{64}$" doc:"SHA-256 of the new secret's 32 octets in hex, where the client makes it at random itself, and can keep it before it asks. Asking again with the same changes nothing. Absent: the coordinator makes one, and the answer is the only one that has it."`
}

// RotatedAPIToken is the one answer that has the new token.
type RotatedAPIToken struct {
	APIToken
	Token string `json:"token,omitempty" doc:"The whole token with its new secret. It is shown this once; only its hash is kept. Absent where the client has made the secret."`
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
	Scope     []string  `json:"scope,omitempty" doc:"The labels of the hosts that it is limited to. Absent: no limit."`
	// FixedExpiry and EarlierUntil are for warnings.
	FixedExpiry  bool      `json:"fixed_expiry,omitempty" doc:"A rotation does not put off the end."`
	EarlierUntil time.Time `json:"earlier_until,omitzero" doc:"The request was made with the secret of before the last rotation, which is good up to then."`
}
