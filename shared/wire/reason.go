package wire

// Reason is what kind of failure an event tells of, so that failures can be counted
// without reading their text.
type Reason string

// Reasons of agents of this version. Later ones may have others: a reason is a word of
// lower-case letters and underscores, at most MaxReasonLen long.
const (
	ReasonUnavailable    Reason = "unavailable"     // the network, or the authority; tried again
	ReasonLimited        Reason = "limited"         // the authority takes nothing new for a while
	ReasonUnknownOutcome Reason = "unknown_outcome" // whether the authority was heard is not known
	ReasonPending        Reason = "pending"         // the authority took too long
	ReasonOrderGone      Reason = "order_gone"      // the order came to nothing
	ReasonRefused        Reason = "refused"         // the authority refuses what is asked for
	ReasonHost           Reason = "host"            // the host's own configuration or environment
	ReasonReenrol        Reason = "re_enrol"        // the authority knows the host no more
	ReasonNoTurn         Reason = "no_turn"         // limits of the host's own leave no time for it
	ReasonDeployment     Reason = "deployment"      // what was issued was not put into service
	ReasonNotInService   Reason = "not_in_service"  // what was in service is not any more
)

// MaxReasonLen bounds a reason.
const MaxReasonLen = 32

// ValidReason reports whether a reason is one, of whichever version.
func ValidReason(reason Reason) bool {
	if reason == "" || len(reason) > MaxReasonLen {
		return false
	}
	for _, r := range reason {
		if (r < 'a' || r > 'z') && r != '_' {
			return false
		}
	}
	return true
}
