package pki

import "strconv"

// Revocation reasons (CRLReason; RFC 5280, section 5.3.1) that this project
// treats in a way of their own.
const (
	ReasonUnspecified   = 0
	ReasonKeyCompromise = 1
	ReasonRemoveFromCRL = 8
)

var reasonNames = map[int]string{
	0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
	5: "cessationOfOperation", 6: "certificateHold", 8: "removeFromCRL", 9: "privilegeWithdrawn", 10: "aACompromise",
}

// ValidReason reports whether code is a CRLReason.
func ValidReason(code int) bool {
	_, known := reasonNames[code]
	return known
}

// ReasonName is the name that RFC 5280 gives a CRLReason; its number if it has
// none.
func ReasonName(code int) string {
	if name, known := reasonNames[code]; known {
		return name
	}
	return strconv.Itoa(code)
}
