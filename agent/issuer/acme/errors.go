package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certctl/certctl/agent/issuer"
)

// step is what was asked of the authority, in words for an error.
type step string

const (
	stepDirectory   step = "read the directory"
	stepAccount     step = "register the account"
	stepNewOrder    step = "place the order"
	stepOrder       step = "look at the order"
	stepAuthz       step = "look at an authorization"
	stepChallenge   step = "announce a challenge response"
	stepFinalize    step = "finalize the order"
	stepCertificate step = "download the certificate"
	stepRenewalInfo step = "ask for renewal information"
	stepRevoke      step = "revoke the certificate"
)

// ofOrder reports whether the step is about something that belongs to an order
// that was placed before.
func (s step) ofOrder() bool {
	switch s {
	case stepOrder, stepAuthz, stepChallenge, stepFinalize, stepCertificate:
		return true
	}
	return false
}

// problemInvalidProfile is from draft-aaron-acme-profiles; acmez has no constant
// for it.
const problemInvalidProfile = acme.ProblemTypeNamespace + "invalidProfile"

// verdict is what a problem type means wherever it occurs.
type verdict struct {
	class issuer.Class
	mend  string
}

// verdicts by the problem types of RFC 8555 section 6.7, RFC 9773 section 7.4
// and the profiles draft. Those about validation are verdicts on a failed
// challenge too, where the class is that of the order.
var verdicts = map[string]verdict{
	acme.ProblemTypeAccountDoesNotExist:     {issuer.ClassRetry, ""},
	acme.ProblemTypeAlreadyReplaced:         {issuer.ClassRetry, ""},
	acme.ProblemTypeBadNonce:                {issuer.ClassRetry, ""},
	acme.ProblemTypeOrderNotReady:           {issuer.ClassRetry, ""},
	acme.ProblemTypeServerInternal:          {issuer.ClassRetry, ""},
	acme.ProblemTypeRateLimited:             {issuer.ClassRetry, "the authority's rate limit is used up: wait, or order fewer certificates"},
	acme.ProblemTypeBadCSR:                  {issuer.ClassRefused, "choose a key algorithm and names that the authority accepts"},
	acme.ProblemTypeBadPublicKey:            {issuer.ClassRefused, "choose a key algorithm that the authority accepts"},
	acme.ProblemTypeBadSignatureAlgorithm:   {issuer.ClassRefused, "choose a key algorithm that the authority accepts"},
	acme.ProblemTypeExternalAccountRequired: {issuer.ClassRefused, "set eab.key_id and eab.hmac_key to what the authority gave for this account"},
	acme.ProblemTypeUserActionRequired:      {issuer.ClassRefused, "do what the authority asks at the address that it names, often agreeing to new terms"},
	acme.ProblemTypeInvalidContact:          {issuer.ClassConfig, "correct email: the authority does not accept the e-mail address"},
	acme.ProblemTypeUnsupportedContact:      {issuer.ClassConfig, "correct email: the authority does not accept the e-mail address"},
	acme.ProblemTypeMalformed:               {issuer.ClassRefused, "see what the authority says about the request"},
	acme.ProblemTypeRejectedIdentifier:      {issuer.ClassRefused, "remove the name, or ask the authority to allow it"},
	acme.ProblemTypeUnsupportedIdentifier:   {issuer.ClassRefused, "remove the name: the authority does not issue for names or addresses of this kind"},
	acme.ProblemTypeBadRevocationReason:     {issuer.ClassRefused, "give a reason that the authority accepts, or none"},
	problemInvalidProfile:                   {issuer.ClassRefused, "choose a profile that the authority offers"},

	acme.ProblemTypeUnauthorized:      {issuer.ClassRefused, "see what the authority says: the account may be deactivated, or may not order this name"},
	acme.ProblemTypeCAA:               {issuer.ClassRetry, "add a CAA record that allows this authority, or remove the one that forbids it"},
	acme.ProblemTypeConnection:        {issuer.ClassRetry, "let the authority reach this host: check DNS, firewall and port forwarding"},
	acme.ProblemTypeDNS:               {issuer.ClassRetry, "check that the name resolves from the Internet and that its DNS servers answer"},
	acme.ProblemTypeTLS:               {issuer.ClassRetry, "check that connections to the validation port reach certctl-agent and nothing in between ends TLS"},
	acme.ProblemTypeIncorrectResponse: {issuer.ClassRetry, "check that the name leads to this host and that the response reaches the authority unchanged"},
}

// challengeMends differ from verdicts where a failed challenge has another cause.
var challengeMends = map[string]string{
	acme.ProblemTypeUnauthorized: "the authority found another answer than this host's: check that the name leads here, and that no other host or proxy answers for it",
	acme.ProblemTypeMalformed:    "check that the name resolves to this host",
}

// classify turns a failed request into an *issuer.Error. status is 0 if there was
// no answer.
func classify(ctx context.Context, step step, status int, retryAfter time.Duration, err error) error {
	wrapped := fmt.Errorf("%s: %w", step, err)
	if ctx.Err() != nil {
		return wrapped // whose time is up knows what to do
	}
	failure := &issuer.Error{Class: issuer.ClassRetry, RetryAfter: retryAfter, Err: wrapped}
	var problem acme.Problem
	switch {
	case errors.As(err, &problem):
		v := judge(problem)
		failure.Class, failure.Mend = v.class, v.mend
		failure.KeyRefused = refusesKey(problem)
		failure.Limited = problem.Type == acme.ProblemTypeRateLimited
	case status == http.StatusNotFound && step == stepDirectory:
		failure.Class, failure.Mend = issuer.ClassConfig, "correct directory"
	case status == 0:
		classifyConnection(failure, err)
	}
	if status == http.StatusTooManyRequests {
		failure.Class, failure.Mend = issuer.ClassRetry, verdicts[acme.ProblemTypeRateLimited].mend
		failure.Limited = true
		return failure
	}
	// An order is a matter between one account and the authority: not found and
	// not allowed both mean that nothing can come of it any more.
	if step.ofOrder() && goneStatus(status) && problem.Type != acme.ProblemTypeAccountDoesNotExist &&
		problem.Type != acme.ProblemTypeOrderNotReady {
		failure.Class = issuer.ClassOrderGone
	}
	return failure
}

// refusesKey reports whether a problem is about the key. The request for a
// certificate holds nothing else but the names, which were agreed on before, so
// that one which is refused is refused for its key: Let's Encrypt answers so to
// keys that were compromised.
func refusesKey(problem acme.Problem) bool {
	switch problem.Type {
	case acme.ProblemTypeBadPublicKey, acme.ProblemTypeBadCSR, acme.ProblemTypeBadSignatureAlgorithm:
		return true
	}
	return false
}

func goneStatus(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return true
	}
	return false
}

// judge looks a problem up; a compound one is as bad as the worst of its parts
// (RFC 8555 section 6.7.1).
func judge(problem acme.Problem) verdict {
	worst, known := verdicts[problem.Type]
	if !known {
		// RFC 8555 section 6.7 lets servers use other types. What the status says
		// is all there is: a client's error will be one again.
		if problem.Status >= 400 && problem.Status < 500 {
			worst = verdict{issuer.ClassRefused, "see what the authority says about the request"}
		} else {
			worst = verdict{issuer.ClassRetry, ""}
		}
	}
	if problem.Type == acme.ProblemTypeUserActionRequired && problem.Instance != "" {
		worst.mend = "do what the authority asks at " + problem.Instance
	}
	if problem.Type != acme.ProblemTypeCompound && known {
		return worst
	}
	for n, sub := range problem.Subproblems {
		v, known := verdicts[sub.Type]
		if known && (n == 0 || v.class > worst.class) {
			worst = v
		}
	}
	return worst
}

func classifyConnection(failure *issuer.Error, err error) {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &unknown):
		failure.Class = issuer.ClassConfig
		failure.Mend = "set ca_file to a file with the root of the authority's own server certificate"
	case errors.As(err, &hostname):
		failure.Class = issuer.ClassConfig
		failure.Mend = "use the name in directory that the authority's server certificate has"
	case errors.As(err, &invalid):
		failure.Class = issuer.ClassConfig
		failure.Mend = "check this host's clock, and the authority's server certificate"
	default:
		failure.Mend = "check that this host reaches the authority: DNS, firewall, proxy"
	}
}

// challengeFailed is the end of an order of which the authority could not
// validate a name; what it saw is in the problem.
func challengeFailed(kind, name string, problem acme.Problem) error {
	v := judge(problem)
	if mend, ok := challengeMends[problem.Type]; ok {
		v.mend = mend
	}
	return &issuer.Error{
		Class: issuer.ClassOrderGone,
		Err:   fmt.Errorf("the authority could not validate %s by %s: %w", name, kind, problem),
		Mend:  v.mend,
	}
}
