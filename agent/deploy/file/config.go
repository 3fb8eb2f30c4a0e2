package file

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/deploy/command"
	"github.com/certctl/certctl/shared/durable"
)

// Layout says how files are put in place.
type Layout string

const (
	// LayoutFiles replaces each file by a rename. Between the renames, some
	// microseconds, a program that reads both files can meet a pair that does
	// not match.
	LayoutFiles Layout = "files"
	// LayoutDirectory keeps all files in one directory whose name is a symbolic
	// link, and changes them together by replacing the link. Unix only.
	LayoutDirectory Layout = "directory"
)

// Defaults of a Config.
const (
	DefaultMode         fs.FileMode = 0o644
	DefaultKeyMode      fs.FileMode = 0o600
	DefaultProbeTimeout             = 5 * time.Second
)

// Paths names the files that are written, each absolute and PEM; empty ones are not.
type Paths struct {
	Certificate string // the leaf alone
	Chain       string // its issuers, without the root
	FullChain   string // the leaf and its issuers
	Key         string // the private key, PKCS #8
	Combined    string // the private key, the leaf and its issuers
}

// Probe says where the program that uses the files serves TLS.
type Probe struct {
	Address    string // host:port
	ServerName string // for the SNI extension; empty takes the host of Address
	// Timeout bounds one connection; 0 is DefaultProbeTimeout.
	Timeout time.Duration
	// Patience is how long after a reload the program may take to serve the new
	// certificate; with 0 the first look decides.
	Patience time.Duration
}

// Config describes one target.
type Config struct {
	Paths  Paths
	Layout Layout // empty is LayoutFiles
	// CreateDirectories creates missing directories (0755) instead of refusing.
	CreateDirectories bool
	// AllowUntrustedDirectories accepts directories that other users can change.
	// Symbolic links in them are never followed.
	AllowUntrustedDirectories bool

	// Owner and Group are names or numeric ids for all files; empty keeps those
	// of the file that is replaced, or takes the agent's. Not for Windows.
	Owner, Group string
	// Mode is for files without a key, KeyMode for those with one; 0 keeps the
	// mode of the file that is replaced, or takes the default. Not for Windows.
	Mode, KeyMode fs.FileMode
	// WindowsAccount may read the files with a key, beside SYSTEM and the
	// administrators. Windows only.
	WindowsAccount string

	// Check, Reload and VerifyCommand run in this order once the files are in
	// place; each may be nil. VerifyCommand succeeds if the new pair is in use.
	Check, Reload, VerifyCommand *command.Config
	// Probe is how the target looks at what is served; nil for programs that
	// nothing can connect to.
	Probe *Probe

	Logger *slog.Logger // nil logs nothing
	// Hook is called around each durable step, for tests of crashes and failing
	// disks; nil in production.
	Hook durable.Hook
}

// Target is a set of files that belong to one program.
type Target struct {
	files             []fileSpec
	layout            layout
	createDirectories bool
	trustAny          bool
	access            access
	check             *command.Command
	reload            *command.Command
	verifyCommand     *command.Command
	probe             *Probe
	log               *slog.Logger
	hook              durable.Hook
}

var _ deploy.Target = (*Target)(nil)

// kind is what a file holds.
type kind string

const (
	kindChain       kind = "chain"
	kindKey         kind = "key"
	kindCombined    kind = "combined"
	kindCertificate kind = "certificate"
	kindFullChain   kind = "fullchain"
)

func (k kind) secret() bool { return k == kindKey || k == kindCombined }

// leaf reports whether the file holds the leaf certificate.
func (k kind) leaf() bool { return k == kindCertificate || k == kindFullChain || k == kindCombined }

// fileSpec is one configured file.
type fileSpec struct {
	kind kind
	path string
}

// New checks the configuration and reports every field that makes no sense. It
// does not look at the file system, which Deploy does each time.
func New(config Config) (*Target, error) {
	var problems []error
	problem := func(field string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", field, err))
		}
	}
	t := &Target{
		files:             config.Paths.list(),
		createDirectories: config.CreateDirectories,
		trustAny:          config.AllowUntrustedDirectories,
		log:               config.Logger,
		hook:              config.Hook,
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	problem("files", checkPaths(t.files))

	var err error
	t.layout, err = newLayout(config.Layout, t)
	problem("files", err)
	t.access, err = newAccess(config)
	if err != nil {
		problems = append(problems, err) // names its field itself
	}
	for _, c := range []struct {
		field  string
		config *command.Config
		to     **command.Command
	}{
		{"check", config.Check, &t.check},
		{"reload", config.Reload, &t.reload},
		{"verify.command", config.VerifyCommand, &t.verifyCommand},
	} {
		if c.config != nil {
			*c.to, err = command.New(*c.config)
			problem(c.field, err)
		}
	}
	t.probe, err = checkProbe(config.Probe)
	problem("verify", err)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return t, nil
}

// list returns the configured files in the order in which they are renamed. The
// files with the leaf come last: a program that watches one of those for changes
// finds the key in place already when it wakes.
func (p Paths) list() []fileSpec {
	var specs []fileSpec
	for _, spec := range []fileSpec{
		{kindChain, p.Chain}, {kindKey, p.Key}, {kindCombined, p.Combined},
		{kindCertificate, p.Certificate}, {kindFullChain, p.FullChain},
	} {
		if spec.path != "" {
			spec.path = filepath.Clean(spec.path)
			specs = append(specs, spec)
		}
	}
	return specs
}

func checkPaths(specs []fileSpec) error {
	var problems []error
	owners := map[string]kind{}
	leaf := false
	for _, spec := range specs {
		if !filepath.IsAbs(spec.path) {
			problems = append(problems, fmt.Errorf("%s: %q must be an absolute path", spec.kind, spec.path))
		}
		if other, taken := owners[spec.path]; taken {
			problems = append(problems, fmt.Errorf("%s: %q is the path of %s too; give each its own", spec.kind, spec.path, other))
		}
		owners[spec.path] = spec.kind
		leaf = leaf || spec.kind.leaf()
	}
	if !leaf {
		problems = append(problems, errors.New("set at least one of certificate, fullchain and combined"))
	}
	return errors.Join(problems...)
}

func checkProbe(p *Probe) (*Probe, error) {
	if p == nil {
		return nil, nil
	}
	if host, port, err := net.SplitHostPort(p.Address); err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("address: %q must be host:port, such as 127.0.0.1:443", p.Address)
	}
	if p.Timeout < 0 || p.Patience < 0 {
		return nil, fmt.Errorf("timeout %v, patience %v: must not be negative", p.Timeout, p.Patience)
	}
	checked := *p
	checked.Timeout = cmp.Or(p.Timeout, DefaultProbeTimeout)
	return &checked, nil
}
