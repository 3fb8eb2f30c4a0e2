package metrics

import "github.com/prometheus/client_golang/prometheus"

// Family is one metric, for the reference page and its tests.
type Family struct {
	Name, Kind, Help string
	Labels           []string
}

const (
	gauge     = "gauge"
	counter   = "counter"
	histogram = "histogram"
)

// The metrics of the coordinator, in the order of the reference page.
var (
	buildInfo = family(gauge, "certctl_coordinator_build_info", "The build of the coordinator; always 1.", "version", "commit", "go_version", "platform")
	ready     = family(gauge, "certctl_coordinator_ready", "Whether requests should be sent to this node.")

	requests  = family(counter, "certctl_coordinator_requests_total", "Requests that were answered, by kind and HTTP status. Those of agents are enroll, sync, identity and trust.", "kind", "code")
	refusals  = family(counter, "certctl_api_refused_requests_total", "Requests to the API that were refused for who sent them. rate: the token was used too often; address: too many without a good token have come from there; unauthorized: no good token; role, scope: the token may do less.", "reason")
	durations = family(histogram, "certctl_coordinator_request_duration_seconds", "From the head of a request to the end of its answer.", "kind")

	raftLeader      = family(gauge, "certctl_raft_leader", "Whether this node leads its cluster.")
	raftLeaderKnown = family(gauge, "certctl_raft_leader_known", "Whether a leader is known to this node.")
	raftTerm        = family(gauge, "certctl_raft_term", "The term of Raft.")
	raftCommit      = family(gauge, "certctl_raft_commit_index", "Newest entry of the log that is known to be committed.")
	raftApplied     = family(gauge, "certctl_raft_applied_index", "Newest entry of the log that is applied.")
	raftLast        = family(gauge, "certctl_raft_last_index", "Newest entry in this node's log.")
	raftSnapshot    = family(gauge, "certctl_raft_snapshot_index", "Newest entry of the log that the newest snapshot covers.")
	raftContact     = family(gauge, "certctl_raft_leader_contact_timestamp_seconds", "When this node last heard of the leader. Absent on the leader.")

	raftVoter         = family(gauge, "certctl_raft_voter", "Whether this node has a vote.")
	raftMembers       = family(gauge, "certctl_raft_members", "Members of the cluster as this node knows them: voters, and joining ones without a vote yet.", "role")
	raftHealthy       = family(gauge, "certctl_raft_healthy_members", "Members that answer the leader, follow it and keep up. Only on the leader.")
	raftTolerance     = family(gauge, "certctl_raft_failure_tolerance", "Voters that may be lost before nothing can be stored any more, in the eyes of the leader. Only on the leader.")
	raftElections     = family(counter, "certctl_raft_elections_total", "How often this node stood for election.")
	raftLeaderChanges = family(counter, "certctl_raft_leader_changes_total", "How often another node than before led, as this node saw it.")
	raftWaiting       = family(gauge, "certctl_raft_waiting_proposals", "Changes that wait for their turn on this node.")
	raftWaitingMax    = family(gauge, "certctl_raft_waiting_proposals_limit", "Waiting changes beyond which more are refused as overload.")
	raftInFlight      = family(gauge, "certctl_raft_inflight_entries", "Entries that Raft was given on this node and that are not applied yet.")
	raftForwarded     = family(counter, "certctl_raft_forwarded_proposals_total", "Changes that this node sent to the leader, by outcome, each attempt by itself. unknown is where the leader did not answer; it is repeated.", "outcome")
	raftQuestions     = family(counter, "certctl_raft_consistency_checks_total", "Questions to the leader, or to a majority, that consistent reads asked; reads at the same moment share one.")
	raftApply         = family(histogram, "certctl_raft_apply_duration_seconds", "Applying one entry to the tables.")
	raftStore         = family(histogram, "certctl_raft_store_duration_seconds", "Writing new entries to the log and syncing it, one step for all that came together.")
	raftSnapshotAt    = family(gauge, "certctl_raft_snapshot_timestamp_seconds", "When the newest snapshot of the log was taken. Absent without one.")
	raftSnapshotBytes = family(gauge, "certctl_raft_snapshot_bytes", "Size of the newest snapshot of the log.")

	nodeCertificate = family(gauge, "certctl_node_certificate_not_after_timestamp_seconds", "End of the certificate that this node shows to the others. It is renewed when two thirds of its life are over.")
	peerConnections = family(gauge, "certctl_peer_connections", "Connections to other nodes, by protocol and direction.", "protocol", "direction")
	peerNodes       = family(gauge, "certctl_peer_nodes", "Other nodes that this one has a connection with.")
	peerAttempts    = family(counter, "certctl_peer_connection_attempts_total", "Connections that this node made to others, by outcome.", "outcome")
	peerAccepted    = family(counter, "certctl_peer_connections_accepted_total", "Connections that other nodes made to this one.")
	peerRefused     = family(counter, "certctl_peer_connections_refused_total", "Connections that were refused, by reason.", "reason")
	peerEnded       = family(counter, "certctl_peer_connections_ended_total", "Connections that were ended because the node is no member any more, or for a new certificate.")

	syncs       = family(counter, "certctl_syncs_total", "Syncs of agents at this node by outcome: accepted and unchanged were answered as the leader, the others are codes of refusals.", "outcome")
	passed      = family(counter, "certctl_passed_requests_total", "Requests of agents that this node passed to the leader, by outcome: answered, failed for want of a leader, refused for want of room.", "outcome")
	passedAgain = family(counter, "certctl_passed_requests_repeated_total", "Requests that were passed once more, after a change of the leader or of the connection.")

	backupAt       = family(gauge, "certctl_backup_timestamp_seconds", "When the newest good snapshot file of this node was taken. Absent without one, and where they are off.")
	backupBytes    = family(gauge, "certctl_backup_bytes", "Size of the newest good snapshot file.")
	backupFiles    = family(gauge, "certctl_backup_files", "Snapshot files of this node, by whether they can be read to the end.", "state")
	backupFailures = family(counter, "certctl_backup_failures_total", "Attempts to write a snapshot file that failed.")
	backupFailing  = family(gauge, "certctl_backup_failing", "Whether the last attempt to write a snapshot file failed.")

	diskFree  = family(gauge, "certctl_data_dir_free_bytes", "Room where the data directory is.")
	diskTotal = family(gauge, "certctl_data_dir_size_bytes", "Size of the file system where the data directory is.")

	tableRows = family(gauge, "certctl_table_rows", "Records of the replicated state.", "table")

	journalFacts   = family(gauge, "certctl_journal_facts", "Facts in the journal.", "class")
	journalBytes   = family(gauge, "certctl_journal_bytes", "Size of the routine facts in the journal.")
	journalLimit   = family(gauge, "certctl_journal_limit_bytes", "Size at which routine facts are dropped.")
	journalLag     = family(gauge, "certctl_journal_lag_entries", "Entries of the log that are applied and whose facts are not in the journal yet.")
	journalLagTime = family(gauge, "certctl_journal_lag_seconds", "For how long the oldest fact that is not in the journal has waited.")
	journalMissing = family(gauge, "certctl_journal_missing_entries", "Entries of the log whose facts the journal lacks, because the node joined later or was away. It gets them from the other members; those that nobody has stay missing.")
	auditHead      = family(gauge, "certctl_audit_head", "Newest number of the audit trail, as the state has it. It only grows: a node on which it falls behind that of the others for long is not keeping up, and one on which it goes back was set back.")
	journalDropped = family(counter, "certctl_journal_dropped_facts_total", "Routine facts that were dropped for want of room.")

	databaseUsable      = family(gauge, "certctl_database_usable", "Whether the database of the history is this cluster's and could be read and written at the last attempt. This one and the others of the database are told by the leader alone, where one is configured.")
	databaseLag         = family(gauge, "certctl_database_lag_facts", "Facts in the journal that are not in the database yet, up to a million.")
	databaseLagTime     = family(gauge, "certctl_database_lag_seconds", "How old the oldest fact is that is not in the database yet; 0 if there is none.")
	databaseThrough     = family(gauge, "certctl_database_exported_index", "Newest entry of the log whose facts are in the database.")
	databaseExported    = family(counter, "certctl_database_exported_facts_total", "Facts that this node has exported since it leads.")
	databaseFailures    = family(counter, "certctl_database_failures_total", "Attempts to export that failed since this node leads.")
	databaseMissing     = family(gauge, "certctl_database_missing_entries", "Entries of the log before the newest exported one whose facts no leader has had yet.")
	databaseConnections = family(gauge, "certctl_database_connections", "Connections to the database.")
	databaseLimit       = family(gauge, "certctl_database_connections_limit", "Connections that this node may have (setting), and that the server grants (server).", "by")

	fleetAgents       = family(gauge, "certctl_fleet_agents", "Agents: connected and cut_off are the active ones.", "state")
	fleetSafe         = family(gauge, "certctl_fleet_safe_until_timestamp_seconds", "When the first expired certificate of the fleet would be served if coordinator, CAs and network were gone from now on. Absent while nothing is served, and while a host is not safe now; past while an expired or revoked one is served.")
	fleetUnsafe       = family(gauge, "certctl_fleet_hosts_safe_for_less", "Active hosts that are safe on their own for less than so many days, those that are not safe now among them.", "days")
	fleetNotSafe      = family(gauge, "certctl_fleet_hosts_not_safe", "Active hosts of which a certificate is not safe now, as last reported.")
	fleetUnserving    = family(gauge, "certctl_fleet_hosts_serving_nothing", "Active hosts that serve no certificate.")
	fleetAtRisk       = family(gauge, "certctl_fleet_hosts_at_risk", "Active hosts with a certificate that has expired or for which a person has to act.")
	fleetWarned       = family(gauge, "certctl_fleet_hosts_with_warnings", "Active hosts that warn of something about themselves, such as a refused assignment or a configuration that is not in effect; certctl agents show tells what.")
	fleetCerts        = family(gauge, "certctl_fleet_certificates", "Managed certificates of active hosts by the state that they were reported in.", "state")
	fleetNotSafeCerts = family(gauge, "certctl_fleet_certificates_not_safe", "Managed certificates of active hosts that are not safe now, as last reported: expired, revoked, or not in service at one of their deployments.")
	fleetAttention    = family(gauge, "certctl_fleet_certificates_needing_attention", "Managed certificates of active hosts for which a person has to act.")
	fleetExpired      = family(gauge, "certctl_fleet_certificates_expired", "Managed certificates of active hosts that have expired, as last reported.")
	fleetOrders       = family(gauge, "certctl_fleet_orders", "Orders at the built-in CA; collected ones are kept for a day.", "state")
	fleetCounted      = family(gauge, "certctl_fleet_counted_timestamp_seconds", "When the fleet was counted, for all certctl_fleet metrics but the offline horizon.")
)

// Those of orders at authorities, and of the accounts there.
var (
	ordersAt     = family(gauge, "certctl_orders", "Orders at authorities by issuer and stage, without those at the built-in CA and those that are delivered.", "issuer", "stage")
	ordersOldest = family(gauge, "certctl_orders_waiting_since_timestamp_seconds", "Since when the order waits that has waited longest of those that need a person, or of which nobody knows whether the authority has them. Absent where there is none.", "issuer", "stage")

	issuerCalls    = family(counter, "certctl_issuer_calls_total", "What this node asked of authorities, by what it came to: ok, or the class of the failure. Those of the leader are nearly all.", "issuer", "call", "outcome")
	issuerAnswered = family(gauge, "certctl_issuer_last_answer_timestamp_seconds", "When the authority last gave this node an answer. Absent before the first.", "issuer")
	issuerPaused   = family(gauge, "certctl_issuer_paused", "Whether nothing is asked of the authority because it limits the account or does not accept its credentials. Only on the leader.", "issuer")
	issuerFailing  = family(gauge, "certctl_issuer_circuit_open", "Whether nothing is asked of the authority for a while because it fails. Only on the leader.", "issuer")
	issuerDue      = family(gauge, "certctl_issuer_due_orders", "Orders whose time has come, or comes within seconds. Only on the leader.", "issuer")
	issuerKnown    = family(gauge, "certctl_issuer_configured", "Whether the settings of the leader have the issuer; 0 for one that orders name, and which wait for that. Only on the leader.", "issuer")
)

var all []*Family

func family(kind, name, help string, labels ...string) *Family {
	f := &Family{Name: name, Kind: kind, Help: help, Labels: labels}
	all = append(all, f)
	return f
}

// Families lists every metric of the coordinator that this package defines.
// Those of the Go runtime and of the process are there too.
func Families() []Family {
	list := make([]Family, 0, len(all))
	for _, f := range all {
		list = append(list, *f)
	}
	return list
}

// descriptions of the families that are made at each scrape.
func descriptions() map[*Family]*prometheus.Desc {
	list := make(map[*Family]*prometheus.Desc, len(all))
	for _, f := range all {
		if f != requests && f != refusals && f != durations { // which count by themselves
			list[f] = prometheus.NewDesc(f.Name, f.Help, f.Labels, nil)
		}
	}
	return list
}
