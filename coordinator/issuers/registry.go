package issuers

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/connector"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/settings"
)

// maxFile bounds a file of certificates, in bytes.
const maxFile = 1 << 20

// Issuer is one account at an authority.
type Issuer struct {
	Name string
	Kind string // one of those of the package config
	// Connector speaks with the account.
	Connector connector.Connector
	// Limits bound what all orders together ask of it.
	Limits asyncpoll.Limits
	// AgentOrders bounds the orders of one agent within a day.
	AgentOrders int
	// MaxWait is the issuer's own budget or that of its kind; 0 leaves it to
	// [asyncpoll.MaxWait].
	MaxWait time.Duration
	// MaxValidity is the longest that an order gets; 0 is any.
	MaxValidity time.Duration
	// Chain completes the chains that the authority hands out, and FetchIssuers has what
	// is still missing be fetched from where the certificates say.
	Chain        []*x509.Certificate
	FetchIssuers bool

	client  *clientCertificate // nil if the authority knows the account otherwise
	secrets []settings.Secret
	now     func() time.Time
}

// Error is a setting of an issuer that cannot be used.
type Error struct {
	// Path is that of the setting, or of the section that it is in.
	Path string
	Err  error
}

func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Options are for tests alone.
type Options struct {
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Dial makes the connections to authorities; nil is the network's own way.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Registry has the issuers of the settings. It does not change and may be used by
// any number of goroutines.
type Registry struct{ issuers map[string]*Issuer }

// New makes the issuers of s, which has been validated, and sets the budget of all
// orders. The files that the settings name are read; what is wrong with any of them
// is an [*Error], and all of those are reported together.
func New(s *config.Settings, o Options) (*Registry, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Registry{issuers: map[string]*Issuer{}}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(s.Issuers)) {
		section := s.Issuers[name]
		made, err := newIssuer(name, &section, o)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		made.MaxWait = s.PollBudget(&section)
		r.issuers[name] = made
	}
	if err := errors.Join(problems...); err != nil {
		r.Close()
		return nil, err
	}
	asyncpoll.SetDefaultMaxWait(time.Duration(s.Orders.PollMaxWait) * time.Second)
	return r, nil
}

func newIssuer(name string, section *config.Issuer, o Options) (*Issuer, error) {
	path := "issuers." + name
	i := &Issuer{
		Name: name, Kind: section.Kind(), MaxValidity: section.MaxValidity, FetchIssuers: section.FetchIssuers, AgentOrders: section.Limits.AgentOrders, now: o.Now,
		Limits: asyncpoll.Limits{Rate: section.Limits.Rate, Burst: section.Limits.Burst, Concurrency: section.Limits.Concurrency},
	}
	var err error
	if i.Chain, err = readChain(section.ChainFile); err != nil {
		return nil, &Error{path + ".chain_file", err}
	}
	b := builder{path: path + "." + i.Kind, validity: validity(section), Options: o}
	switch {
	case section.DigiCert != nil:
		i.Connector, err = b.digicert(section.DigiCert)
	case section.Entrust != nil:
		i.Connector, err = b.entrust(section.Entrust)
	case section.GlobalSign != nil:
		i.Connector, err = b.globalsign(section.GlobalSign)
	case section.Sectigo != nil:
		i.Connector, err = b.sectigo(section.Sectigo)
	case section.Vault != nil:
		i.Connector, err = b.vault(section.Vault)
	default:
		err = errors.New("no section says what it is")
	}
	i.client, i.secrets = b.client, b.secrets
	if err == nil {
		return i, nil
	}
	if located, ok := errors.AsType[*Error](err); ok {
		return nil, located
	}
	return nil, &Error{b.path, err}
}

// digicertValidity is what DigiCert is told where nobody says anything.
const digicertValidity = 90 * 24 * time.Hour

// validity is that of orders that do not say. Where the settings say no more than the
// longest, an authority that would give a longer one is told that.
func validity(section *config.Issuer) time.Duration {
	switch {
	case section.Validity > 0 || section.DigiCert != nil && section.MaxValidity > digicertValidity:
		return section.Validity
	}
	return section.MaxValidity
}

// Known is the kind of an issuer, and whether there is one of that name.
func (r *Registry) Known(name string) (kind string, ok bool) {
	i, ok := r.issuers[name]
	if !ok {
		return "", false
	}
	return i.Kind, true
}

// Issuer is the one of a name, nil if there is none.
func (r *Registry) Issuer(name string) *Issuer { return r.issuers[name] }

// All are the issuers, by name.
func (r *Registry) All() []*Issuer {
	list := make([]*Issuer, 0, len(r.issuers))
	for _, name := range slices.Sorted(maps.Keys(r.issuers)) {
		list = append(list, r.issuers[name])
	}
	return list
}

// Close ends the idle connections.
func (r *Registry) Close() {
	for _, i := range r.issuers {
		if c, ok := i.Connector.(interface{ Close() }); ok {
			c.Close()
		}
	}
}

// Budget is how long the issuer's orders are asked about at the quick pace.
func (i *Issuer) Budget() time.Duration { return asyncpoll.MaxWait(i.MaxWait) }

// readFile reads a file of bounded size.
func readFile(path string) (text []byte, err error) {
	file, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if text, err = io.ReadAll(io.LimitReader(file, maxFile+1)); err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d KiB; it is not the file that was meant", path, maxFile>>10)
	}
	return text, nil
}

// readChain reads a file of certificates; none without a path.
func readChain(path string) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, nil
	}
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	chain, err := pki.ParseChainPEM(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return chain, nil
}
