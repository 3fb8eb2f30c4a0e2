// Package config is the coordinator's configuration: one typed struct, read
// from a YAML file, then the environment, then flags.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/settings"
)

// DefaultFile is where the coordinator looks for its configuration when it is
// not told another place.
const DefaultFile = defaultFile

// Settings is everything that can be set for certctl-coordinator. All of it
// has defaults: a coordinator without a configuration file works.
type Settings struct {
	DataDir string `yaml:"data_dir" env:"CERTCTL_DATA_DIR" default:"/var/lib/certctl-coordinator" default_windows:"C:\\ProgramData\\certctl-coordinator" doc:"Directory of the coordinator's state: the Raft log and snapshots, the journal, the sealed CA. Only the coordinator writes here."`
	NodeID  string `yaml:"node_id" env:"CERTCTL_NODE_ID" default:"" max:"64" doc:"Name of this node in the cluster, the same for ever: letters, digits, and . _ -. Empty: a random one, made at the first start and kept in the data directory."`

	Log     Log     `yaml:"log" doc:"Logging."`
	Server  Server  `yaml:"server" doc:"The HTTPS server for agents, the API and the command line."`
	CA      CA      `yaml:"ca" doc:"The built-in CA. Its root and issuing CAs are made at the first start."`
	API     API     `yaml:"api" doc:"Limits of the API."`
	Fleet   Fleet   `yaml:"fleet" doc:"The fleet's pace and limits."`
	Journal Journal `yaml:"journal" doc:"The journal, which is the history while no database is configured."`

	Database Database `yaml:"database" doc:"A PostgreSQL database that the leader exports the history to; see docs/operator/database.md. All nodes of a cluster need the same."`

	Cluster Cluster `yaml:"cluster" doc:"The cluster of coordinators. One node is a cluster too."`
	Backups Backups `yaml:"backups" doc:"Snapshots of the replicated state that every node takes for its operator."`
	Orders  Orders  `yaml:"orders" doc:"Orders at authorities that may take minutes, or days and a person."`

	Issuers map[string]Issuer `yaml:"issuers" max:"64" doc:"Accounts at certificate authorities that the coordinator orders at for its agents, by name; see docs/operator/issuers.md. All nodes of a cluster need the same: the one that leads uses its own. The name \"builtin\" always stands for the built-in CA."`
}

// Log is how the coordinator logs.
type Log struct {
	Level  string `yaml:"level" env:"CERTCTL_LOG_LEVEL" default:"info" oneof:"debug|info|warn|error" doc:"The least severe level that is logged."`
	Format string `yaml:"format" env:"CERTCTL_LOG_FORMAT" default:"auto" oneof:"auto|text|json" doc:"auto is text on a terminal, else JSON."`
}

// Server is where the coordinator listens, and under which names.
type Server struct {
	Listen string   `yaml:"listen" env:"CERTCTL_SERVER_LISTEN" default:":8443" doc:"Address of the HTTPS server, host:port."`
	Names  []string `yaml:"names" env:"CERTCTL_SERVER_NAMES" default:"" max:"100" doc:"DNS names and IP addresses by which agents and people reach this node; they stand in its certificate. This host's name, localhost and the loopback addresses are always in it."`
	URL    string   `yaml:"url" env:"CERTCTL_SERVER_URL" default:"" doc:"The URL that new agents are told to use; its host stands in the certificate too. Empty: made from the first of names, or the host's name, and the port. In a cluster each node has its own, and agents learn of all of them; set the same one on all nodes, such as a load balancer's, and agents keep to what they were given."`
}

// CA is the built-in certificate authority.
type CA struct {
	Name             string          `yaml:"name" env:"CERTCTL_CA_NAME" default:"certctl" max:"60" doc:"Organization in the subject of the CA's certificates. Only used when the CA is made."`
	SealKey          settings.Secret `yaml:"seal_key" env:"CERTCTL_CA_SEAL_KEY" doc:"Key that seals the CA's private keys at rest: 32 bytes in base64. Empty: made at the first start and kept in seal.key in the data directory. Back it up apart from the data."`
	LeafLifetime     time.Duration   `yaml:"leaf_lifetime" env:"CERTCTL_CA_LEAF_LIFETIME" default:"30d" min:"1m" max:"397d" unit:"d" doc:"Lifetime of certificates from the built-in CA when the agent asks for none, and the longest that it may ask for."`
	CRLURL           string          `yaml:"crl_url" env:"CERTCTL_CA_CRL_URL" default:"" doc:"Where relying parties find the revocation lists: certificates of the built-in CA name their list below it, at a path of <key id>.crl. Empty: below /ca/ at this coordinator, by its own URL, which is https. Many programs fetch lists by plain http alone: give an http URL at which a proxy or a web server passes on or copies what is below /ca/. none: certificates name no list."`
	IdentityLifetime time.Duration   `yaml:"identity_lifetime" env:"CERTCTL_CA_IDENTITY_LIFETIME" default:"30d" min:"1m" max:"397d" unit:"d" doc:"Lifetime of agents' identity certificates, which agents renew by themselves at half of it."`
}

// API bounds the use of the API.
type API struct {
	Rate  int `yaml:"rate" env:"CERTCTL_API_RATE" default:"100" min:"0" max:"100000" doc:"Requests per second that each node answers one API token. More are refused with 429 and told when to come back. An answer that nothing has changed (304) counts as a tenth. 0: no limit."`
	Burst int `yaml:"burst" env:"CERTCTL_API_BURST" default:"200" min:"1" max:"1000000" doc:"Requests that a token may make at once, before the rate counts."`
}

// Fleet is how the coordinator paces agents.
type Fleet struct {
	SyncInterval   time.Duration `yaml:"sync_interval" env:"CERTCTL_SYNC_INTERVAL" default:"60s" min:"1s" max:"1h" doc:"How long an agent with nothing new pauses between syncs."`
	SyncTargetRate int           `yaml:"sync_target_rate" env:"CERTCTL_SYNC_TARGET_RATE" default:"500" min:"1" max:"100000" doc:"Syncs per second that the whole fleet is paced to. A fleet too large for the interval gets a longer one."`
	MaxInFlight    int           `yaml:"max_in_flight" env:"CERTCTL_MAX_IN_FLIGHT" default:"256" min:"1" max:"100000" doc:"Requests of one kind (enrolment, sync, API) that are worked on at the same time. More are refused and told when to come back."`
}

// Journal is the ordered list of facts.
type Journal struct {
	Retention time.Duration `yaml:"retention" env:"CERTCTL_JOURNAL_RETENTION" default:"90d" min:"1h" max:"3650d" doc:"How long routine facts are kept. With a database they are kept until it has them, if that is longer. Facts of the audit trail stay."`
	MaxBytes  int64         `yaml:"max_bytes" env:"CERTCTL_JOURNAL_MAX_BYTES" default:"4294967296" min:"16777216" doc:"Size limit of the journal. Above four fifths of it the coordinator warns; at it, routine facts are dropped and counted."`
}

// Database is where the history goes that is to be kept for long.
type Database struct {
	URL              settings.Secret `yaml:"url" env:"CERTCTL_DATABASE_URL" doc:"Connection URL, such as postgres://certctl:password@db.example.com:5432/certctl?sslmode=verify-full. Each cluster has a database of its own, which the user owns. Empty: there is no database, and the journal is the history."`
	MaxConns         int             `yaml:"max_conns" env:"CERTCTL_DATABASE_MAX_CONNS" default:"50" min:"3" max:"10000" doc:"How many connections the leader may have at most; the other nodes have none. While the leadership changes, two nodes may have so many for a moment."`
	StatementTimeout time.Duration   `yaml:"statement_timeout" env:"CERTCTL_DATABASE_STATEMENT_TIMEOUT" default:"30s" min:"1s" max:"1h" doc:"How long one statement may take."`
	Retention        time.Duration   `yaml:"retention" env:"CERTCTL_DATABASE_RETENTION" default:"0s" min:"0s" max:"36500d" doc:"How long the database keeps routine facts, in whole months. 0: for ever, or until \"certctl history prune\". Facts of the audit trail stay."`
}

func (d *Database) validate(report func(string, error)) {
	if !d.URL.IsSet() {
		return
	}
	if err := postgres.CheckURL(d.URL); err != nil {
		report("database.url", err) // which does not hold the text
	}
}

// Cluster is how this node and the others find and judge each other.
type Cluster struct {
	Listen          string          `yaml:"listen" env:"CERTCTL_CLUSTER_LISTEN" default:":8444" doc:"Address, host:port, at which the other nodes of the cluster reach this one. Only nodes of the cluster get past its TLS handshake."`
	Advertise       string          `yaml:"advertise" env:"CERTCTL_CLUSTER_ADVERTISE" default:"" doc:"Address, host:port, that this node tells the others to use. A name is looked up each time. Empty: the first of server.names or this host's name, with the port of listen."`
	JoinToken       settings.Secret `yaml:"join_token" env:"CERTCTL_CLUSTER_JOIN_TOKEN" doc:"A token of \"certctl cluster join-token create\". A node whose data directory is empty joins that cluster with it, instead of founding one; after that it has no effect."`
	ElectionTimeout time.Duration   `yaml:"election_timeout" env:"CERTCTL_CLUSTER_ELECTION_TIMEOUT" default:"1s" min:"100ms" max:"1m" doc:"How long nodes go without a word from the leader before they elect another. Longer for slow links between them."`
	Stabilization   time.Duration   `yaml:"stabilization" env:"CERTCTL_CLUSTER_STABILIZATION" default:"10s" min:"1s" max:"1h" doc:"How long a new node must have been healthy before it gets a vote."`
	MinQuorum       int             `yaml:"min_quorum" env:"CERTCTL_CLUSTER_MIN_QUORUM" default:"3" min:"1" max:"7" doc:"Number of voting nodes below which the clean-up of dead nodes removes none."`
	DeadServerAfter time.Duration   `yaml:"dead_server_after" env:"CERTCTL_CLUSTER_DEAD_SERVER_AFTER" default:"72h" min:"0s" max:"8760h" doc:"How long a node must have been dead before the leader removes it from the cluster, if enough voting nodes are left and no part of the history is missing on all others. 0: never; remove it with \"certctl cluster remove\"."`
}

// Backups are the snapshots that a node takes by itself.
type Backups struct {
	Interval  time.Duration `yaml:"interval" env:"CERTCTL_BACKUP_INTERVAL" default:"6h" min:"0s" max:"8760h" doc:"How often this node writes a snapshot of the replicated state to a file, if it has changed. 0: never."`
	Keep      int           `yaml:"keep" env:"CERTCTL_BACKUP_KEEP" default:"8" min:"1" max:"1000" doc:"How many of these files are kept."`
	Directory string        `yaml:"directory" env:"CERTCTL_BACKUP_DIRECTORY" default:"" doc:"Where they are. Empty: backups in the data directory. Another disk is better; under systemd the unit needs ReadWritePaths= for it, in a drop-in."`
}

// BackupDirectory is where the node's own snapshots go.
func (s *Settings) BackupDirectory() string {
	if s.Backups.Directory != "" {
		return s.Backups.Directory
	}
	return filepath.Join(s.DataDir, "backups")
}

func (c *Cluster) validate(report func(string, error)) {
	if err := settings.CheckListen(c.Listen); err != nil {
		report("cluster.listen", err)
	}
	if c.Advertise != "" {
		host, port, err := net.SplitHostPort(c.Advertise)
		number, portErr := strconv.ParseUint(port, 10, 16)
		if err != nil || portErr != nil || host == "" || number == 0 || net.ParseIP(host).IsUnspecified() {
			report("cluster.advertise", fmt.Errorf("cannot use %q; expected an address that other nodes can reach, such as c1.example.com:8444", c.Advertise))
		}
	}
	if c.JoinToken.IsSet() {
		if _, err := jointoken.Parse(c.JoinToken.Reveal()); err != nil {
			report("cluster.join_token", err) // which does not hold the text
		}
	}
}

// ServerNames are the configured names, and the one in the configured URL,
// which agents use and therefore has to be in the certificate too.
func (s *Settings) ServerNames() []string {
	u, err := url.Parse(s.Server.URL)
	if err != nil || u.Hostname() == "" {
		return s.Server.Names
	}
	return append([]string{u.Hostname()}, s.Server.Names...)
}

// NoCRL is the value of ca.crl_url with which certificates name no list.
const NoCRL = "none"

// RevocationURL is the base of the URLs that certificates name; own is where this
// coordinator's lists are. "" names none.
func (c *CA) RevocationURL(own string) string {
	switch c.CRLURL {
	case "":
		return own
	case NoCRL:
		return ""
	}
	return c.CRLURL
}

func (c *CA) checkCRLURL() error {
	if c.CRLURL == "" || c.CRLURL == NoCRL {
		return nil
	}
	u, err := url.Parse(c.CRLURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || len(c.CRLURL) > 512 {
		return fmt.Errorf("cannot use %q; expected a URL such as http://crl.example.com/ca, or none", c.CRLURL)
	}
	return nil
}

// Validate implements settings.Validator.
func (s *Settings) Validate(report func(string, error)) {
	if !filepath.IsAbs(s.DataDir) {
		report("data_dir", fmt.Errorf("cannot use %q; expected an absolute path", s.DataDir))
	}
	if err := CheckNewNodeID(s.NodeID); err != nil && !s.named() {
		report("node_id", err)
	}
	if err := settings.CheckListen(s.Server.Listen); err != nil {
		report("server.listen", err)
	}
	if len(s.Server.Names) > 0 {
		pki.CheckNames("server.names", s.Server.Names, report)
	}
	if text := s.Server.URL; text != "" {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.TrimSuffix(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			report("server.url", fmt.Errorf("cannot use %q; expected a URL such as https://certctl.example.com:8443", text))
		} else if _, err := pki.ParseNames([]string{u.Hostname()}); err != nil {
			report("server.url", err)
		}
	}
	s.Cluster.validate(report)
	s.Database.validate(report)
	s.validateIssuers(report)
	if dir := s.Backups.Directory; dir != "" && !filepath.IsAbs(dir) {
		report("backups.directory", fmt.Errorf("cannot use %q; expected an absolute path", dir))
	}
	if err := s.CA.checkCRLURL(); err != nil {
		report("ca.crl_url", err)
	}
	if s.CA.SealKey.IsSet() {
		if _, err := ca.ParseSealKey(s.CA.SealKey.Reveal()); err != nil {
			report("ca.seal_key", err) // which does not hold the text
		}
	}
	if s.CA.Name == "" {
		report("ca.name", errors.New("expected an organization's name"))
	}
}

// CheckNewNodeID refuses a name that stands badly in file names, URLs and command
// lines. The empty one is a name that is made.
func CheckNewNodeID(id string) error {
	odd := strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	})
	if !odd {
		return nil
	}
	return fmt.Errorf("cannot use %.80q; expected 1 to 64 letters, digits, dots, underscores and hyphens", id)
}

// named reports whether the data directory may belong to a node already. Such a
// node keeps the name that it was given when more was allowed; whether it is the
// configured one is looked at when it starts.
func (s *Settings) named() bool {
	_, err := os.Lstat(filepath.Join(s.DataDir, NodeIDFile))
	return !errors.Is(err, fs.ErrNotExist)
}

// NodeIDFile is the file of the data directory that has the node's name.
const NodeIDFile = "node-id"
