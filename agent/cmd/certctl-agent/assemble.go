package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/deploy/file"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/issuer/acme"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/settings"
)

// parts is what issuers and targets are made with, besides the settings.
type parts struct {
	settings    *config.Settings
	report      *settings.Report
	accountKeys acme.KeyStore
	issuerState acme.StateStore
	coordinator func(name string) issuer.Issuer // by the name there; "" is its built-in CA
	listeners   *acme.Listeners                 // of the whole run
	// before are the issuers of the configuration before: those whose section is
	// the same are taken over, with their sessions and what they know of limits.
	before  map[string]madeIssuer
	made    map[string]madeIssuer    // of managed
	issuers map[string]issuer.Issuer // of the settings
	own     *config.Own              // where nothing is installed; nil until it is asked for
	clock   *clock.Clock             // nil in a check of the configuration
	log     *slog.Logger
}

// madeIssuer is an issuer and what it was made of.
type madeIssuer struct {
	section *config.ACME
	roots   []byte // what its ca_file held
	issuer  *acme.Issuer
	id      string // another one for each that is made
}

// sameIssuer reports whether two sections are the same, secrets included.
func sameIssuer(a, b config.Issuer) bool { return reflect.DeepEqual(a, b) }

// with are parts for another configuration.
func (p *parts) with(s *config.Settings, report *settings.Report) *parts {
	next := *p
	next.settings, next.report = s, report
	next.before, next.made, next.issuers, next.own = p.made, nil, nil, nil
	return &next
}

// askForTime has these issuers, and no others, asked for the time.
func (p *parts) askForTime() {
	if p.clock == nil {
		return
	}
	named := make(map[string]bool, len(p.made))
	for _, m := range p.made {
		named[m.issuer.TimeSource()] = true
		p.clock.AddSource(m.issuer.TimeSource(), m.issuer.AskTime)
	}
	for _, m := range p.before {
		if name := m.issuer.TimeSource(); !named[name] {
			p.clock.RemoveSource(name)
		}
	}
}

// managed turns the configuration into what the engine manages. Its error is all
// that is wrong, each with its place in the configuration.
func (p *parts) managed() ([]renewal.Managed, error) {
	problems := []error{p.makeIssuers()}
	list := make([]renewal.Managed, 0, len(p.settings.Certificates))
	mayInstall := p.ownPaths().Checker()
	for i := range p.settings.Certificates {
		m, err := p.certificate(&p.settings.Certificates[i], mayInstall, func(field string, err error) error {
			return p.report.Problem(fmt.Sprintf("certificates[%d].%s", i, field), err)
		})
		problems = append(problems, err)
		list = append(list, m)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return list, nil
}

// certificate turns one definition into what the engine manages; mayInstall refuses
// paths of its files, and problem places an error in it. Its error is all that is
// wrong.
func (p *parts) certificate(c *config.Certificate, mayInstall func(path string) error, problem func(field string, err error) error) (renewal.Managed, error) {
	names, err := pki.ParseNames(c.Names)
	if err != nil {
		return renewal.Managed{}, problem("names", err)
	}
	m := renewal.Managed{
		Name: c.Name, Names: names, KeyAlgorithm: c.Key, ReuseKey: c.KeyPolicy == managed.KeyReuse,
		Profile: c.Profile, Lifetime: c.Lifetime,
	}
	for _, name := range c.Issuers() {
		m.Issuers = append(m.Issuers, renewal.NamedIssuer{Name: name, Issuer: p.issuer(name), Limits: p.limits(name), Config: p.made[name].id})
	}
	var problems []error
	for j := range c.Deployments {
		target, err := p.target(&c.Deployments[j], names, mayInstall)
		var configured []byte
		if err == nil {
			configured, err = json.Marshal(c.Deployments[j])
		}
		if err != nil {
			problems = append(problems, problem(fmt.Sprintf("deployments[%d]", j), err))
			continue
		}
		m.Deployments = append(m.Deployments, renewal.Deployment{ID: c.Deployments[j].IDAt(j), Target: target, Config: digestOf(configured)})
	}
	if err := errors.Join(problems...); err != nil {
		return renewal.Managed{}, err
	}
	return m, nil
}

// digestOf stands for a text that is only compared.
func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// makeIssuers makes the issuers of the configuration, once: an account and a
// listener belong to one of them.
func (p *parts) makeIssuers() error {
	if p.listeners == nil {
		p.listeners = acme.NewListeners(p.log)
	}
	p.issuers = make(map[string]issuer.Issuer, len(p.settings.Issuers))
	p.made = make(map[string]madeIssuer, len(p.settings.Issuers))
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(p.settings.Issuers)) {
		made, err := p.acme(name, p.settings.Issuers[name].ACME)
		if err != nil {
			problems = append(problems, p.report.Problem("issuers."+name, err))
			continue
		}
		p.made[name], p.issuers[name] = made, made.issuer
	}
	return errors.Join(problems...)
}

// issuer is what a name stands for.
func (p *parts) issuer(name string) issuer.Issuer {
	if there, brokered := managed.Brokered(name); brokered {
		return p.coordinator(there)
	}
	return p.issuers[name]
}

// limits are those of an issuer; the coordinator sets the pace of its hosts itself.
func (p *parts) limits(name string) renewal.Limits {
	section, configured := p.settings.Issuers[name]
	if !configured {
		return renewal.Limits{}
	}
	l := section.Limits
	return renewal.Limits{OrdersPerHour: section.Budget(), Burst: l.Burst, Concurrency: l.Concurrency}
}

func (p *parts) acme(name string, a *config.ACME) (madeIssuer, error) {
	roots, text, err := readRoots(a.CAFile)
	if err != nil {
		return madeIssuer{}, err
	}
	if kept, ok := p.before[name]; ok && reflect.DeepEqual(kept.section, a) && bytes.Equal(kept.roots, text) {
		return kept, nil
	}
	cfg := acme.Config{
		Name: name, DirectoryURL: a.Directory, RootCAs: roots, Contact: a.Email, TermsAgreed: a.TermsAgreed,
		PreferredChain: a.PreferredChain, Solver: solver(a), Listeners: p.listeners,
		Keys: p.accountKeys, State: p.issuerState, Log: p.log,
	}
	if a.EAB != nil {
		cfg.EAB = &acme.EAB{KeyID: a.EAB.KeyID, HMACKey: a.EAB.HMACKey}
	}
	if p.clock != nil {
		cfg.Clock = p.clock
	}
	made, err := acme.New(cfg)
	return madeIssuer{section: a, roots: text, issuer: made, id: rand.Text()}, err
}

func solver(a *config.ACME) acme.Solver {
	switch a.Challenge {
	case "tls-alpn-01":
		return acme.TLSALPN01{Listen: a.TLSALPN01.Listen}
	case "dns-01":
		if e := a.DNS01.Exec; e != nil {
			return acme.DNS01Exec{Command: e.Command, Timeout: e.Timeout, PropagationWait: a.DNS01.PropagationWait}
		}
		r := a.DNS01.RFC2136
		s := acme.DNS01RFC2136{Server: r.Server, Zone: r.Zone, TTL: r.TTL, PropagationWait: a.DNS01.PropagationWait}
		if r.TSIGKeyName != "" {
			s.TSIG = &acme.TSIG{Name: r.TSIGKeyName, Algorithm: r.TSIGAlgorithm, Secret: r.TSIGSecret}
		}
		return s
	}
	if a.HTTP01.Webroot != "" {
		return acme.HTTP01Webroot{Path: a.HTTP01.Webroot}
	}
	return acme.HTTP01{Listen: a.HTTP01.Listen}
}

// readRoots reads a PEM file of roots; nil, for the system's roots, without a file.
func readRoots(path string) (*x509.CertPool, []byte, error) {
	if path == "" {
		return nil, nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, nil, fmt.Errorf("ca_file: %s holds no certificate in PEM", path)
	}
	return roots, text, nil
}

// ownPaths are where nothing is installed.
func (p *parts) ownPaths() *config.Own {
	if p.own == nil {
		p.own = p.settings.Own(p.report)
	}
	return p.own
}

func (p *parts) target(d *managed.Deployment, names pki.Names, mayInstall func(path string) error) (*file.Target, error) {
	for _, f := range d.Files.Paths() {
		if err := mayInstall(f.Path); err != nil {
			return nil, fmt.Errorf("files.%s: %w", f.Key, err)
		}
	}
	cfg := file.Config{
		Paths: file.Paths{
			Certificate: d.Files.Certificate, Chain: d.Files.Chain, FullChain: d.Files.FullChain,
			Key: d.Files.Key, Combined: d.Files.Combined,
		},
		Layout:            file.LayoutFiles,
		CreateDirectories: d.Files.CreateDirectories,
		Owner:             d.Files.Owner, Group: d.Files.Group, WindowsAccount: d.Files.WindowsAccount,
		Mode: fs.FileMode(d.Files.Mode), KeyMode: fs.FileMode(d.Files.KeyMode),
		Check:  argv(d.Check, d.CheckTimeout),
		Reload: argv(d.Reload, d.ReloadTimeout),
		Logger: p.log,
	}
	if dir := d.Files.Directory; dir != "" {
		cfg.Layout = file.LayoutDirectory
		cfg.Paths = file.Paths{
			Certificate: filepath.Join(dir, "cert.pem"), Chain: filepath.Join(dir, "chain.pem"),
			FullChain: filepath.Join(dir, "fullchain.pem"), Key: filepath.Join(dir, "privkey.pem"),
		}
	}
	if v := d.Verify; v != nil {
		cfg.VerifyCommand = argv(v.Command, d.CheckTimeout)
		if v.Address != "" {
			name := v.ServerName
			if name == "" && len(names.DNS) > 0 {
				name = names.DNS[0]
			}
			cfg.Probe = &file.Probe{Address: v.Address, ServerName: name, Patience: v.Patience}
		}
	}
	return file.New(cfg)
}

// checkAssembly makes everything that the configuration describes, and throws
// it away: what only issuers and targets can judge is reported too.
func checkAssembly(s *config.Settings, report *settings.Report) (warnings []string, err error) {
	p := &parts{settings: s, report: report, accountKeys: nowhere{}, issuerState: nowhere{}, coordinator: absentAt, log: slog.New(slog.DiscardHandler)}
	if _, err := p.managed(); err != nil {
		return nil, err
	}
	return doubts(s, report), nil
}

// nowhere keeps nothing. It stands in for state in a check that touches none.
type nowhere struct{}

var errNowhere = errors.New("a check of the configuration has no state")

func (nowhere) Create(pki.KeyAlgorithm) (string, crypto.Signer, error) { return "", nil, errNowhere }
func (nowhere) Load(string) (crypto.Signer, error)                     { return nil, errNowhere }
func (nowhere) IssuerState(string) (json.RawMessage, error)            { return nil, errNowhere }
func (nowhere) SaveIssuerState(string, json.RawMessage) error          { return errNowhere }
