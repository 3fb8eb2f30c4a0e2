// Package config is the coordinator's configuration: one typed struct, read
// from a YAML file, then the environment, then flags.
package config

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
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
	NodeID  string `yaml:"node_id" env:"CERTCTL_NODE_ID" default:"" max:"64" doc:"Name of this node in the cluster, the same for ever. Empty: a random one, made at the first start and kept in the data directory."`

	Log     Log     `yaml:"log" doc:"Logging."`
	Server  Server  `yaml:"server" doc:"The HTTPS server for agents, the API and the command line."`
	CA      CA      `yaml:"ca" doc:"The built-in CA. Its root and issuing CAs are made at the first start."`
	Fleet   Fleet   `yaml:"fleet" doc:"The fleet's pace and limits."`
	Journal Journal `yaml:"journal" doc:"The journal, which is the history while no database is configured."`
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
	URL    string   `yaml:"url" env:"CERTCTL_SERVER_URL" default:"" doc:"The URL that new agents are told to use; its host stands in the certificate too. Empty: made from the first of names, or the host's name, and the port."`
}

// CA is the built-in certificate authority.
type CA struct {
	Name             string          `yaml:"name" env:"CERTCTL_CA_NAME" default:"certctl" max:"60" doc:"Organization in the subject of the CA's certificates. Only used when the CA is made."`
	SealKey          settings.Secret `yaml:"seal_key" env:"CERTCTL_CA_SEAL_KEY" doc:"Key that seals the CA's private keys at rest: 32 bytes in base64. Empty: made at the first start and kept in seal.key in the data directory. Back it up apart from the data."`
	LeafLifetime     time.Duration   `yaml:"leaf_lifetime" env:"CERTCTL_CA_LEAF_LIFETIME" default:"30d" min:"1m" max:"397d" doc:"Lifetime of certificates from the built-in CA when the agent asks for none, and the longest that it may ask for."`
	CRLURL           string          `yaml:"crl_url" env:"CERTCTL_CA_CRL_URL" default:"" doc:"Where relying parties find the revocation lists: certificates of the built-in CA name their list below it, at a path of <key id>.crl. Empty: below /ca/ at this coordinator, by its own URL, which is https. Many programs fetch lists by plain http alone: give an http URL at which a proxy or a web server passes on or copies what is below /ca/. none: certificates name no list."`
	IdentityLifetime time.Duration   `yaml:"identity_lifetime" env:"CERTCTL_CA_IDENTITY_LIFETIME" default:"30d" min:"1m" max:"397d" doc:"Lifetime of agents' identity certificates, which agents renew by themselves at half of it."`
}

// Fleet is how the coordinator paces agents.
type Fleet struct {
	SyncInterval   time.Duration `yaml:"sync_interval" env:"CERTCTL_SYNC_INTERVAL" default:"60s" min:"1s" max:"1h" doc:"How long an agent with nothing new pauses between syncs."`
	SyncTargetRate int           `yaml:"sync_target_rate" env:"CERTCTL_SYNC_TARGET_RATE" default:"500" min:"1" max:"100000" doc:"Syncs per second that the whole fleet is paced to. A fleet too large for the interval gets a longer one."`
	MaxInFlight    int           `yaml:"max_in_flight" env:"CERTCTL_MAX_IN_FLIGHT" default:"256" min:"1" max:"100000" doc:"Requests of one kind (enrolment, sync, API) that are worked on at the same time. More are refused and told when to come back."`
}

// Journal is the ordered list of facts.
type Journal struct {
	Retention time.Duration `yaml:"retention" env:"CERTCTL_JOURNAL_RETENTION" default:"90d" min:"1h" max:"3650d" doc:"How long facts are kept. Audit facts are kept until a database has them."`
	MaxBytes  int64         `yaml:"max_bytes" env:"CERTCTL_JOURNAL_MAX_BYTES" default:"4294967296" min:"16777216" doc:"Size limit of the journal. Above four fifths of it the coordinator warns; at it, routine facts are dropped and counted."`
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
