package entrust

import (
	"net/http"
	"strings"

	"github.com/certctl/certctl/coordinator/connector"
)

// Sources of rows: the vendor's own clients and documentation of the gateway.
const (
	fromVendor = "vendor's clients"
	fromDocs   = "vendor's documentation"
	ours       = "nothing documents it"
)

// enrollmentTable is what the words for an enrollment mean whose answer has no
// certificate: one that has is issued, whatever the word.
var enrollmentTable = connector.NewStates(
	connector.StateRow{Word: "", State: connector.Pending, Source: ours},
	connector.StateRow{Word: "PENDING", State: connector.Pending, Source: fromVendor},
	connector.StateRow{Word: "ACCEPTED", State: connector.Pending, Source: fromVendor},
	connector.StateRow{Word: "ISSUED", State: connector.Pending, Source: fromVendor},
	connector.StateRow{Word: "REJECTED", State: connector.Rejected, Source: fromVendor},
)

// certificateTable is what the words for a certificate mean.
var certificateTable = connector.NewStates(
	connector.StateRow{Word: "", State: connector.Issued, Source: fromVendor}, // some CAs have no word
	connector.StateRow{Word: "normal", State: connector.Issued, Source: fromVendor},
	connector.StateRow{Word: "held", State: connector.Revoked, Source: fromVendor},
	connector.StateRow{Word: "suspended", State: connector.Revoked, Source: fromVendor},
	connector.StateRow{Word: "revoked", State: connector.Revoked, Source: fromVendor},
	connector.StateRow{Word: "expired", State: connector.Ended, Source: fromVendor},
)

const capMend = "buy more certificates at Entrust, or revoke some that are not needed"

// codeTable has the codes whose meaning is documented.
var codeTable = connector.NewCodes(
	connector.CodeRow{Code: "TooManyRequests", Class: connector.ClassBusy, Source: fromDocs},
	connector.CodeRow{Code: "cagw-4018", Class: connector.ClassRefused, Mend: "see whether the profile takes keys of this kind and these names", Source: fromVendor},
)

// capWords are what a refusal is known by that is for want of certificates that were
// paid for.
var capWords = []string{"purchased", "quota", "inventory"}

// classify completes a failure of which the code says nothing.
func classify(e *connector.Error, status int) *connector.Error {
	if e.Class != "" || status/100 != 4 && status/100 != 2 || status == http.StatusTooManyRequests {
		return e
	}
	text := strings.ToLower(e.Detail)
	for _, word := range capWords {
		if strings.Contains(text, word) {
			e.Class, e.Mend = connector.ClassNeedsPerson, capMend
		}
	}
	return e
}

// reasons are the vendor's words of RFC 5280 section 5.3.1, by their codes; any other
// one is unspecified. A hold is none: it may be taken back.
var reasons = map[int]string{
	0: "unspecified", 1: "keyCompromise", 2: "caCompromise", 3: "affiliationChanged", 4: "superseded", 5: "cessationOfOperation", 9: "privilegeWithdrawn",
}
