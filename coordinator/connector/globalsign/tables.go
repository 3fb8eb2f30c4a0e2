package globalsign

import (
	"net/http"
	"strings"

	"github.com/certctl/certctl/coordinator/connector"
)

// Sources of rows: the vendor's description of the API and its own client, and
// clients of others that agree.
const (
	fromVendor = "vendor's description of the API"
	fromBoth   = "vendor's description of the API and clients"
	ours       = "nothing documents it"
)

// wordWorking is what status 202 stands for: the authority has no word for it.
const wordWorking = "202"

// stateTable has every state that is documented.
var stateTable = connector.NewStates(
	connector.StateRow{Word: wordWorking, State: connector.Pending, Source: fromBoth},
	connector.StateRow{Word: "ISSUED", State: connector.Issued, Source: fromBoth},
	connector.StateRow{Word: "REVOKED", State: connector.Revoked, Source: fromBoth},
)

const (
	claimMend  = "claim the domain in GlobalSign Atlas, or renew its claim, and prove control of it"
	quotaMend  = "buy more certificates at GlobalSign, or have the quota of the account raised"
	policyMend = "compare the order with the account's validation policy; certctl issuers test shows what it wants"
)

// markTable has what refusals are known by: the authority has no codes.
var markTable = connector.Marks{
	{Status: http.StatusNotFound, Class: connector.ClassNotFound, Source: fromBoth},
	{Word: "quota", Class: connector.ClassNeedsPerson, Mend: quotaMend, Source: ours},
	{Word: "claim", Class: connector.ClassNeedsPerson, Mend: claimMend, Source: ours},
	{Word: "not vetted", Class: connector.ClassNeedsPerson, Mend: claimMend, Source: ours},
	{Status: http.StatusUnprocessableEntity, Class: connector.ClassRefused, Mend: policyMend, Source: fromBoth},
	{Status: http.StatusBadRequest, Class: connector.ClassRefused, Mend: policyMend, Source: fromVendor},
	{Status: http.StatusUnsupportedMediaType, Class: connector.ClassRefused, Source: fromBoth},
}

// refusal is the class and the mend of a failure. Words count in answers that refuse,
// and not in those of a busy authority or of one that is out of order; words are
// further ones, which the settings have.
func refusal(status int, text string, words []string) *connector.Error {
	if status/100 != 4 || status == http.StatusUnauthorized || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout {
		return &connector.Error{}
	}
	if status != http.StatusNotFound && has(strings.ToLower(text), words) {
		return &connector.Error{Class: connector.ClassNeedsPerson, Mend: "see in GlobalSign Atlas what the account lacks for this order"}
	}
	return markTable.Error(status, text)
}

func has(text string, words []string) bool {
	for _, word := range words {
		if word != "" && strings.Contains(text, strings.ToLower(word)) {
			return true
		}
	}
	return false
}

// reasons are the words of RFC 5280 section 5.3.1 that the vendor takes, by their
// codes; any other one is unspecified.
var reasons = map[int]string{
	0: "unspecified", 1: "keyCompromise", 3: "affiliationChanged", 4: "superseded", 5: "cessationOfOperation", 9: "privilegeWithdrawn",
}
