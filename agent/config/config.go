// Package config is the agent's configuration: one typed struct, read from a
// YAML file, then the environment, then flags.
package config

import (
	"time"

	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/settings"
)

// DefaultFile is where the agent looks for its configuration when it is not
// told another place.
const DefaultFile = defaultFile

// Settings is everything that can be set for certctl-agent.
type Settings struct {
	StateDir string `yaml:"state_dir" env:"CERTCTL_STATE_DIR" default:"/var/lib/certctl-agent" default_windows:"C:\\ProgramData\\certctl-agent" doc:"Directory of the agent's state: one bbolt file and snapshots of deployments that are under way. Only the agent writes here."`
	KeyDir   string `yaml:"key_dir" env:"CERTCTL_KEY_DIR" default:"" doc:"Directory of private keys (0700; on Windows for SYSTEM and Administrators). Empty: the directory keys inside the state directory."`

	Log     Log     `yaml:"log" doc:"Logging."`
	Control Control `yaml:"control" doc:"The local socket that status, list and renew talk to."`

	Coordinator Coordinator `yaml:"coordinator" doc:"The coordinator that the agent reports to. Enrolment stores its address; without enrolment the agent works alone."`
	Renewal     Renewal     `yaml:"renewal" doc:"The renewal engine."`
	Assignments Assignments `yaml:"assignments" doc:"What the coordinator may have this host do beyond this file."`
	Metrics     Metrics     `yaml:"metrics" doc:"What Prometheus is told; see docs/reference/metrics.md."`
	Revocation  Revocation  `yaml:"revocation" doc:"The check whether certificates in service were revoked."`

	Issuers      map[string]Issuer `yaml:"issuers" doc:"Certificate authorities by name. The name \"coordinator\" always stands for the coordinator's built-in CA."`
	Certificates []Certificate     `yaml:"certificates" max:"100000" doc:"The managed certificates of this host."`
}

// Log is how the agent logs.
type Log struct {
	Level  string `yaml:"level" env:"CERTCTL_LOG_LEVEL" default:"info" oneof:"debug|info|warn|error" doc:"The least severe level that is logged."`
	Format string `yaml:"format" env:"CERTCTL_LOG_FORMAT" default:"auto" oneof:"auto|text|json" doc:"auto is text on a terminal, else JSON."`
}

// Control is the local socket.
type Control struct {
	Socket string `yaml:"socket" env:"CERTCTL_AGENT_SOCKET" default:"/run/certctl-agent/control.sock" default_windows:"\\\\.\\pipe\\certctl-agent" doc:"Path of the Unix socket, or name of the Windows named pipe. Only the agent's user and administrators may use it."`
	Group  string `yaml:"group" env:"CERTCTL_AGENT_SOCKET_GROUP" default:"" doc:"Group whose members may use the socket too, to see the state and to force renewals. Not for Windows."`
}

// Coordinator is how the agent talks to its coordinator.
type Coordinator struct {
	Servers     []string      `yaml:"servers" env:"CERTCTL_COORDINATOR_SERVERS" max:"16" example:"https://certctl.example.com:8443" doc:"Further https URLs by which the coordinator may be reached, beside those of the enrolment and the nodes of the cluster, of which the agent learns by itself. They are tried when none of the nodes answers."`
	SyncTimeout time.Duration `yaml:"sync_timeout" env:"CERTCTL_SYNC_TIMEOUT" default:"30s" min:"1s" max:"5m" doc:"How long one sync request may take. How often the agent syncs is for the coordinator to say."`
}

// Renewal is how the engine works.
type Renewal struct {
	Concurrency  int           `yaml:"concurrency" env:"CERTCTL_RENEWAL_CONCURRENCY" default:"25" min:"1" max:"1000" doc:"How many certificates are renewed or deployed at the same time."`
	TickInterval time.Duration `yaml:"tick_interval" env:"CERTCTL_RENEWAL_TICK_INTERVAL" default:"5s" min:"100ms" max:"1h" doc:"How often the agent looks for certificates that are due (±10 %). A look costs the number that is due, not the number that exists."`
	TickBudget   time.Duration `yaml:"tick_budget" env:"CERTCTL_RENEWAL_TICK_BUDGET" default:"2m" min:"1s" max:"1h" doc:"How long one look may go on starting work. Past it nothing new starts before the next look."`
	IssueTimeout time.Duration `yaml:"issue_timeout" env:"CERTCTL_RENEWAL_ISSUE_TIMEOUT" default:"5m" min:"5s" max:"1h" doc:"How long one attempt at an authority may take. The next attempt continues the same order."`
	KeepRemoved  time.Duration `yaml:"keep_removed" env:"CERTCTL_RENEWAL_KEEP_REMOVED" default:"720h" min:"0s" max:"87600h" doc:"How long the record and the keys of a certificate that was taken out of the configuration are kept. If it comes back in that time, it goes on where it was, and nothing is ordered. 0s deletes them at once."`
}

// Assignments is what a host lets the centre define on it.
type Assignments struct {
	Accept        bool             `yaml:"accept" env:"CERTCTL_ASSIGNMENTS_ACCEPT" default:"true" doc:"Whether certificates that are defined at the coordinator are managed here, within the name patterns of the enrolment."`
	AllowPaths    []string         `yaml:"allow_paths" env:"CERTCTL_ASSIGNMENTS_ALLOW_PATHS" max:"100" default:"/etc/certctl/certs" default_windows:"C:\\ProgramData\\certctl\\certs" doc:"Directories below which such certificates may install files. An empty list allows none: an assignment that installs files is refused then."`
	AllowCommands []AllowedCommand `yaml:"allow_commands" max:"100" doc:"Commands that such certificates may run as check, reload or verify. A coordinator that was taken over can run nothing else here."`
	AllowVerify   []string         `yaml:"allow_verify" env:"CERTCTL_ASSIGNMENTS_ALLOW_VERIFY" max:"100" example:"10.0.0.7:443" doc:"Where verify.address of such certificates may lead, beside this host itself (loopback and its own addresses) and the names of the certificate: host:port, or a network such as 10.0.0.0/24. What answers there is told to the coordinator. Link-local addresses are allowed only by themselves or by a network of such."`
}

// AllowedCommand is one command that the centre may have run.
type AllowedCommand struct {
	Command []string `yaml:"command" required:"true" min:"1" max:"64" example:"systemctl,reload,nginx" doc:"The command with all its arguments, exactly as the assignment has it."`
}

// Metrics is where metrics are, if anywhere.
type Metrics struct {
	Listen           string        `yaml:"listen" env:"CERTCTL_METRICS_LISTEN" default:"" example:"127.0.0.1:9464" doc:"Address that /metrics is served on, host:port, in plain HTTP and to everybody who reaches it: names of certificates and issuers, and dates. Empty: off."`
	TextFile         string        `yaml:"textfile" env:"CERTCTL_METRICS_TEXTFILE" default:"" example:"/var/lib/node_exporter/textfile/certctl.prom" doc:"File to write for the textfile collector of node_exporter. Its name ends in .prom. Empty: off."`
	TextFileInterval time.Duration `yaml:"textfile_interval" env:"CERTCTL_METRICS_TEXTFILE_INTERVAL" default:"60s" min:"5s" max:"1h" doc:"How often the file is written (±10 %)."`
}

// Revocation is how certificates in service are checked for revocation.
type Revocation struct {
	Interval time.Duration `yaml:"interval" env:"CERTCTL_REVOCATION_CHECK_INTERVAL" default:"6h" min:"0s" max:"168h" doc:"How often each certificate's authority is asked, by OCSP or a revocation list, whether it was revoked (±10 %). A revoked one is replaced at once, with a new key. An authority that cannot be asked is never held against a certificate. 0s asks nobody."`
}

// Issuer is one certificate authority; exactly one of its sections is given.
type Issuer struct {
	ACME   *ACME  `yaml:"acme" doc:"An authority that speaks ACME (RFC 8555)."`
	Limits Limits `yaml:"limits" doc:"How much this host asks of the authority. What has to wait for its turn is no failure; what expires first goes first, and goes beyond this where its turn would come too late; names that fail get one turn in four while others wait."`
}

// Limits bound what is asked of an authority.
type Limits struct {
	OrdersPerHour int `yaml:"orders_per_hour" default:"0" min:"0" max:"1000000" doc:"How many orders are begun in an hour in the long run. 0: 100 for an authority that is trusted through the system's roots (no ca_file), which public ones are; no limit for others."`
	Burst         int `yaml:"burst" default:"0" min:"0" max:"1000000" doc:"How many orders may follow each other at once after a quiet time. 0: as many as in two hours."`
	Concurrency   int `yaml:"concurrency" default:"0" min:"0" max:"1000" doc:"How many certificates whose issuer this is are worked on at the same time. 0: up to renewal.concurrency, shared with the other issuers."`
}

// publicOrdersPerHour is what authorities for everybody bear of one account: Let's
// Encrypt takes 300 orders at once and 100 an hour.
const publicOrdersPerHour = 100

// Budget is how many orders of the issuer are begun in an hour; 0 is any number.
func (i *Issuer) Budget() int {
	if i.Limits.OrdersPerHour == 0 && i.ACME != nil && i.ACME.CAFile == "" {
		return publicOrdersPerHour
	}
	return i.Limits.OrdersPerHour
}

// ACME is an ACME authority and how to prove control of names to it.
type ACME struct {
	Directory      string    `yaml:"directory" required:"true" example:"https://acme-v02.api.letsencrypt.org/directory" doc:"URL of the ACME directory."`
	Email          []string  `yaml:"email" max:"10" example:"pki@example.com" doc:"Contact addresses of the account."`
	TermsAgreed    bool      `yaml:"terms_agreed" default:"false" doc:"Whether you agree to the authority's terms of service. It will not issue without."`
	CAFile         string    `yaml:"ca_file" default:"" doc:"PEM file of the roots to trust for the ACME server itself, for private authorities. Empty: the system's roots."`
	PreferredChain string    `yaml:"preferred_chain" default:"" doc:"Common name of the issuer at the top of the chain to prefer, where the authority offers several."`
	Challenge      string    `yaml:"challenge" default:"http-01" oneof:"http-01|tls-alpn-01|dns-01" doc:"How control of the names is proved. Wildcard names need dns-01."`
	EAB            *EAB      `yaml:"eab" doc:"External account binding (RFC 8555, section 7.3.4), where the authority wants it."`
	HTTP01         HTTP01    `yaml:"http_01" doc:"Settings of the challenge http-01."`
	TLSALPN01      TLSALPN01 `yaml:"tls_alpn_01" doc:"Settings of the challenge tls-alpn-01."`
	DNS01          DNS01     `yaml:"dns_01" doc:"Settings of the challenge dns-01: exactly one of exec and rfc2136."`
}

// EAB is an external account binding.
type EAB struct {
	KeyID   string          `yaml:"key_id" required:"true" doc:"The key identifier that the authority gave."`
	HMACKey settings.Secret `yaml:"hmac_key" doc:"The MAC key that the authority gave, in base64url."`
}

// HTTP01 is the challenge of RFC 8555, section 8.3.
type HTTP01 struct {
	Listen  string `yaml:"listen" default:":80" doc:"Address on which the agent answers while a challenge is open. Not used with webroot."`
	Webroot string `yaml:"webroot" default:"" doc:"Directory that a web server already serves; challenge files are written below .well-known/acme-challenge there."`
}

// TLSALPN01 is the challenge of RFC 8737.
type TLSALPN01 struct {
	Listen string `yaml:"listen" default:":443" doc:"Address on which the agent answers while a challenge is open."`
}

// DNS01 is the challenge of RFC 8555, section 8.4.
type DNS01 struct {
	Exec            *DNSExec      `yaml:"exec" doc:"A command of your own that sets and removes TXT records."`
	RFC2136         *RFC2136      `yaml:"rfc2136" doc:"Dynamic updates to a name server."`
	PropagationWait time.Duration `yaml:"propagation_wait" default:"0s" min:"0s" max:"1h" doc:"How long to wait after a record is set before the authority is told to look."`
}

// DNSExec is the hook for dns-01.
type DNSExec struct {
	Command []string      `yaml:"command" required:"true" min:"1" max:"64" example:"/usr/local/bin/dns-hook" doc:"The command and its arguments, run without a shell and with a small environment of its own, followed by: present or cleanup, the record's name, its value."`
	Timeout time.Duration `yaml:"timeout" default:"1m" min:"1s" max:"30m" doc:"How long one call may take."`
}

// RFC2136 is a name server that takes signed updates.
type RFC2136 struct {
	Server        string          `yaml:"server" required:"true" example:"ns1.example.com:53" doc:"Name server, host:port."`
	Zone          string          `yaml:"zone" default:"" doc:"Zone to update. Empty: found by asking the server for the SOA record."`
	TSIGKeyName   string          `yaml:"tsig_key_name" default:"" doc:"Name of the TSIG key (RFC 8945). Empty: updates are not signed."`
	TSIGAlgorithm string          `yaml:"tsig_algorithm" default:"hmac-sha256" oneof:"hmac-sha256|hmac-sha384|hmac-sha512" doc:"Algorithm of the TSIG key."`
	TSIGSecret    settings.Secret `yaml:"tsig_secret" doc:"The TSIG key in base64."`
	TTL           time.Duration   `yaml:"ttl" default:"1m" min:"1s" max:"1h" doc:"Time to live of the records."`
}

// Certificate is one managed certificate.
type Certificate struct {
	Name string `yaml:"name" required:"true" max:"128" example:"www" doc:"Its name on this host: unique, and the same for ever, since state is kept by it."`

	managed.Certificate `yaml:",inline"`
}
