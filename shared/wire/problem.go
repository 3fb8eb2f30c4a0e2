package wire

import (
	"fmt"
	"strings"
	"time"
)

// ProblemContentType is the media type of error answers (RFC 9457, section 3).
const ProblemContentType = "application/problem+json"

// Code is the stable, machine-readable class of a problem. What a client does
// about an error follows from it, never from text.
type Code string

// Codes of the agent interface and of the API.
const (
	CodeProtocol        Code = "protocol_unsupported"
	CodeInvalid         Code = "request_invalid"
	CodeBodyTooLarge    Code = "body_too_large"
	CodeStale           Code = "sequence_stale"
	CodeTokenUnknown    Code = "token_unknown" // also a wrong secret: nothing tells the two apart
	CodeTokenExpired    Code = "token_expired"
	CodeTokenUsed       Code = "token_used"
	CodeTokenRevoked    Code = "token_revoked"
	CodeNamesRefused    Code = "names_refused"
	CodeCSRInvalid      Code = "csr_invalid"
	CodeKeyRefused      Code = "key_refused"
	CodeIdentityMissing Code = "identity_missing" // no client certificate
	CodeIdentityUnknown Code = "identity_unknown" // not issued here, or replaced
	CodeIdentityExpired Code = "identity_expired" // may renew itself, nothing else
	CodeAgentRetired    Code = "agent_retired"
	CodeIssuerUnknown   Code = "issuer_unknown"
	CodeOrderCancelled  Code = "order_cancelled" // somebody took the order back
	CodeOrderGivenUp    Code = "order_given_up"  // nobody knows whether the authority has it, and an operator has ended it
	CodeUnauthorized    Code = "unauthorized"
	CodeForbidden       Code = "forbidden"
	CodeNotFound        Code = "not_found"
	CodeConflict        Code = "conflict"
	CodeOverloaded      Code = "overloaded"
	CodeRateLimited     Code = "rate_limited" // this client asks too often
	CodeUnavailable     Code = "unavailable"  // not ready, or it is not known what came of it
	CodeNoLeader        Code = "no_leader"    // and nothing was done
	CodeNotMember       Code = "not_member"   // the node was removed from its cluster; nothing was done
	CodeInternal        Code = "internal"
)

// Problem is an RFC 9457 problem document with three additions: a stable code,
// the field that is wrong, and how to mend it.
type Problem struct {
	Type   string `json:"type"` // "about:blank" or a documentation anchor
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Code   Code   `json:"code"`
	Field  string `json:"field,omitempty"`
	Mend   string `json:"mend,omitempty"`
	// RetryAfterSeconds repeats the Retry-After header; 0 when there is none.
	RetryAfterSeconds int64  `json:"retry_after_seconds,omitempty"`
	RequestID         string `json:"request_id,omitempty"`
}

// Error makes a Problem usable as an error. It reads as one line.
func (p *Problem) Error() string {
	var b strings.Builder
	switch {
	case p.Detail != "":
		b.WriteString(p.Detail)
	case p.Title != "":
		b.WriteString(p.Title)
	default:
		fmt.Fprintf(&b, "the coordinator answered %d", p.Status)
	}
	if p.Field != "" {
		fmt.Fprintf(&b, " (field %s)", p.Field)
	}
	fmt.Fprintf(&b, " [%s]", p.Code)
	if p.Mend != "" {
		b.WriteString("; ")
		b.WriteString(p.Mend)
	}
	return b.String()
}

// RetryAfter is the pause that the problem asks for, 0 when it asks for none.
func (p *Problem) RetryAfter() time.Duration {
	return time.Duration(p.RetryAfterSeconds) * time.Second
}
