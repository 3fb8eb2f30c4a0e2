package metrics

// Family is one metric, for the reference page and its tests.
type Family struct {
	Name, Kind, Help string
	Labels           []string
}

const (
	gauge   = "gauge"
	counter = "counter"
)

// The metrics of the agent, in the order in which they are written.
var (
	buildInfo       = family(gauge, "certctl_agent_build_info", "The build of the agent; always 1.", "version", "commit", "go_version", "platform")
	startTime       = family(gauge, "process_start_time_seconds", "When the agent started, since the Unix epoch.")
	hostSafe        = family(gauge, "certctl_agent_safe_until_timestamp_seconds", "When the first expired certificate would be served if coordinator, CAs and network were gone from now on. Absent while nothing is served, and while a certificate is not safe now; past while an expired or revoked one is served.")
	notSafe         = family(gauge, "certctl_agent_certificates_not_safe", "Managed certificates that are not safe now: expired, revoked, or not in service at one of their deployments.")
	certificates    = family(gauge, "certctl_agent_certificates", "Managed certificates by state.", "state")
	attention       = family(gauge, "certctl_agent_certificates_needing_attention", "Managed certificates for which a person has to act.")
	unserved        = family(gauge, "certctl_agent_certificates_unserved", "Managed certificates that are not in service at one of their deployments, or were never issued.")
	renewals        = family(counter, "certctl_agent_renewals_total", "Ends of renewals and of attempts at them since the start, by the issuer that was asked: renewed is a certificate in service, order_failed an attempt at the issuer, deployment_failed one to put it into service.", "issuer", "outcome")
	warnings        = family(gauge, "certctl_agent_warnings", "Findings about the host itself that a person has to look at, such as a refused assignment or a configuration on disk that is not in effect; certctl-agent status shows them.")
	enrolled        = family(gauge, "certctl_agent_enrolled", "Whether the agent is enrolled with a coordinator.")
	connected       = family(gauge, "certctl_agent_coordinator_connected", "Whether the last sync with the coordinator succeeded.")
	coordinatorInfo = family(gauge, "certctl_agent_coordinator_info", "The server of the coordinator that the agent talked to last; always 1. Absent while the host is not enrolled or its agent is retired.", "server")
	lastSync        = family(gauge, "certctl_agent_last_sync_timestamp_seconds", "When the last sync succeeded. Absent before the first one.")
	cutOffSince     = family(gauge, "certctl_agent_cut_off_since_timestamp_seconds", "Since when syncs have failed. Absent while they succeed.")
	identityEnd     = family(gauge, "certctl_agent_identity_not_after_timestamp_seconds", "When the agent's identity certificate expires, which it renews by itself. Absent while it is not enrolled.")
	outbox          = family(gauge, "certctl_agent_outbox_events", "Facts that wait for the coordinator.")
	dropped         = family(counter, "certctl_agent_outbox_dropped_events_total", "Facts that a full outbox merged or dropped since the state file was made.")
	clockSkew       = family(gauge, "certctl_agent_clock_skew_seconds", "How far the host's clock is ahead of the time that the agent goes by.")
	clockConfirmed  = family(gauge, "certctl_agent_clock_confirmed", "Whether nothing speaks against the time that the agent goes by.")
	notAfter        = family(gauge, "certctl_certificate_not_after_timestamp_seconds", "When the certificate in service expires. Absent before the first one.", "certificate")
	renewAt         = family(gauge, "certctl_certificate_renew_at_timestamp_seconds", "When the certificate will be renewed. Absent before the first one.", "certificate")
	safeUntil       = family(gauge, "certctl_certificate_safe_until_timestamp_seconds", "When the first of its deployments would serve it expired, without help from outside. Absent while it is not in service everywhere.", "certificate")
	served          = family(gauge, "certctl_certificate_served", "Whether it is in service at all of its deployments.", "certificate")
	state           = family(gauge, "certctl_certificate_state", "Where the agent stands with it: 1 for the state that it is in.", "certificate", "state")
	needsAttention  = family(gauge, "certctl_certificate_needs_attention", "Whether a person has to act.", "certificate")
	certificateInfo = family(gauge, "certctl_certificate_info", "The issuer of the certificate in service; always 1.", "certificate", "issuer")
)

// all grows as the variables above are made.
var all []Family

func family(kind, name, help string, labels ...string) *Family {
	all = append(all, Family{Name: name, Kind: kind, Help: help, Labels: labels})
	return &Family{Name: name, Kind: kind, Help: help, Labels: labels}
}

// Families lists every metric of the agent, in the order of the output.
func Families() []Family { return append([]Family(nil), all...) }
