package vault

import (
	"net/http"
	"strings"

	"github.com/certctl/certctl/coordinator/connector"
)

// Sources of rows: the vendors' documentation of the API, and the source of both
// servers.
const (
	fromDocs   = "documentation of the API"
	fromSource = "source of the server"
)

// Words for what is told of a certificate by other fields than a word.
const (
	wordIssued  = "issued"  // it is kept
	wordRevoked = "revoked" // revocation_time is set
	wordExpired = "expired" // by the certificate itself
)

// stateTable is what the words mean.
var stateTable = connector.NewStates(
	connector.StateRow{Word: wordIssued, State: connector.Issued, Source: fromDocs},
	connector.StateRow{Word: wordRevoked, State: connector.Revoked, Source: fromDocs},
	connector.StateRow{Word: wordExpired, State: connector.Ended, Source: fromDocs},
)

const (
	accountMend = "see that the token is good still, and what its policies let it do: certctl issuers test shows it"
	loginMend   = "check the issuer's role id and secret id: a secret id may have ended or be used up"
	mountMend   = "check the issuer's mount and namespace: there is no PKI secrets engine"
	roleMend    = "check the issuer's role: the mount has none of that name"
	issuerMend  = "see that the mount has a certificate and a key to sign with, and check the issuer's issuer"
	namesMend   = "have the role allow these names: see allowed_domains, allow_subdomains, allow_bare_domains, allow_wildcard_certificates and allow_ip_sans"
	cnMend      = "let the role sign without a common name (require_cn=false): the order has no name that fits there"
	keyMend     = "have the role take keys of this kind: see key_type and key_bits"
	endMend     = "renew the issuing certificate of the mount, or have shorter certificates ordered"
	serialMend  = "see whether the role keeps its certificates (no_store), and whether this one was tidied away"
	approveMend = "take the path out of the control group, or place no orders there: nobody could fetch what is released"
)

// markTable has what failures are known by: the server has no codes.
var markTable = connector.Marks{
	{Status: http.StatusServiceUnavailable, Word: "sealed", Class: connector.ClassBusy, Mend: "unseal the server", Source: fromDocs},
	{Status: http.StatusPreconditionFailed, Class: connector.ClassRetry, Source: fromDocs},
	{Status: http.StatusForbidden, Word: "permission denied", Class: connector.ClassCredentials, Mend: accountMend, Source: fromSource},
	{Word: "missing client token", Class: connector.ClassCredentials, Mend: accountMend, Source: fromSource},
	{Word: "invalid role or secret id", Class: connector.ClassCredentials, Mend: loginMend, Source: fromSource},
	{Word: "invalid secret id", Class: connector.ClassCredentials, Mend: loginMend, Source: fromSource},
	{Word: "invalid role id", Class: connector.ClassCredentials, Mend: loginMend, Source: fromSource},
	{Word: "request needs further approval", Class: connector.ClassConfig, Mend: approveMend, Source: fromSource},
	{Word: "no handler for route", Class: connector.ClassConfig, Mend: mountMend, Source: fromSource},
	{Word: "unsupported path", Class: connector.ClassConfig, Mend: mountMend, Source: fromSource},
	{Word: "unsupported operation", Class: connector.ClassConfig, Mend: mountMend, Source: fromSource},
	{Word: "unknown role", Class: connector.ClassConfig, Mend: roleMend, Source: fromSource},
	{Word: "unable to find pki issuer", Class: connector.ClassConfig, Mend: issuerMend, Source: fromSource},
	{Word: "could not fetch the ca certificate", Class: connector.ClassConfig, Mend: issuerMend, Source: fromSource},
	{Word: "beyond the expiration of the ca certificate", Class: connector.ClassNeedsPerson, Mend: endMend, Source: fromSource},
	{Word: "not allowed by this role", Class: connector.ClassRefused, Mend: namesMend, Source: fromSource},
	{Word: "not allowed in this role", Class: connector.ClassRefused, Mend: namesMend, Source: fromSource},
	{Word: "common_name field is required", Class: connector.ClassRefused, Mend: cnMend, Source: fromSource},
	{Word: "role requires", Class: connector.ClassRefused, Mend: keyMend, Source: fromSource},
	{Status: http.StatusBadRequest, Word: "certificate with serial", Class: connector.ClassNotFound, Mend: serialMend, Source: fromSource},
}

// nothing is what stands for an empty list of errors, with which the server says that
// there is nothing at a path, or nothing to list.
const nothing = "the server has nothing there"

// problem reads {"errors":["…"]}.
func problem(a *connector.Answer) *connector.Error {
	var body struct {
		Errors *[]string `json:"errors"`
	}
	if !a.Reads(&body) || body.Errors == nil {
		return nil
	}
	text := spoken(*body.Errors)
	if text == "" {
		text = nothing
	}
	return markTable.Error(a.Status, text)
}

// spoken is texts in one line, without what the server sets lists of errors off by:
// "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n".
func spoken(texts []string) string {
	var list []string
	for _, text := range texts {
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "* "))
			if line != "" && !strings.HasSuffix(line, "error occurred:") && !strings.HasSuffix(line, "errors occurred:") {
				list = append(list, line)
			}
		}
	}
	return strings.Join(list, "; ")
}
