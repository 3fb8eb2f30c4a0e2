package cli

// Environment lists every environment variable of every certctl program. A
// host may keep them all in one file, so that a program warns of a name that
// stands nowhere here, which is a spelling mistake, and not of one that is
// another program's. A test holds it equal to what the settings declare.
var Environment = []string{
	// certctl-agent
	"CERTCTL_AGENT_SOCKET",
	"CERTCTL_AGENT_SOCKET_GROUP",
	"CERTCTL_ASSIGNMENTS_ACCEPT",
	"CERTCTL_ASSIGNMENTS_ALLOW_PATHS",
	"CERTCTL_KEY_DIR",
	"CERTCTL_RENEWAL_CONCURRENCY",
	"CERTCTL_RENEWAL_ISSUE_TIMEOUT",
	"CERTCTL_RENEWAL_KEEP_REMOVED",
	"CERTCTL_RENEWAL_TICK_BUDGET",
	"CERTCTL_RENEWAL_TICK_INTERVAL",
	"CERTCTL_STATE_DIR",
	"CERTCTL_SYNC_TIMEOUT",
	// certctl-coordinator
	"CERTCTL_CA_IDENTITY_LIFETIME",
	"CERTCTL_CA_LEAF_LIFETIME",
	"CERTCTL_CA_NAME",
	"CERTCTL_CA_SEAL_KEY",
	"CERTCTL_CA_SEAL_KEY_FILE",
	"CERTCTL_DATA_DIR",
	"CERTCTL_JOURNAL_MAX_BYTES",
	"CERTCTL_JOURNAL_RETENTION",
	"CERTCTL_MAX_IN_FLIGHT",
	"CERTCTL_NODE_ID",
	"CERTCTL_SERVER_LISTEN",
	"CERTCTL_SERVER_NAMES",
	"CERTCTL_SERVER_URL",
	"CERTCTL_SYNC_INTERVAL",
	"CERTCTL_SYNC_TARGET_RATE",
	// both
	"CERTCTL_CONFIG_FILE",
	"CERTCTL_LOG_FORMAT",
	"CERTCTL_LOG_LEVEL",
	// certctl, the operator's command line
	"CERTCTL_CA_CRL_URL",
	"CERTCTL_CA_FILE",
	"CERTCTL_CONTEXT",
	"CERTCTL_TOKEN",
	"CERTCTL_TOKEN_FILE",
}
