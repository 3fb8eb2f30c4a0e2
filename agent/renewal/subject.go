package renewal

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
)

// Subject is everything that decisions about one certificate depend on, as a
// copy that a drill may do with as it likes. It holds no key and no certificate,
// and can be handed from the running agent to another process as JSON.
type Subject struct {
	// Record is what is stored, but for what issuers and targets keep for
	// themselves and for the certificates, in whose place something else stands.
	Record       *store.Certificate `json:"record"`
	Issuers      []SubjectIssuer    `json:"issuers"` // in configured order
	ConfigDigest string             `json:"config_digest"`
	KeyAlgorithm pki.KeyAlgorithm   `json:"key_algorithm"`
	Lifetime     time.Duration      `json:"lifetime,omitempty"` // nanoseconds; 0 leaves it to the issuer
	Places       []Place            `json:"places,omitempty"`   // in configured order
	// Concurrency is how many certificates of the host are worked on at the same
	// time. It is the same for all of them.
	Concurrency int `json:"concurrency"`
}

// SubjectIssuer is one of the issuers of a Subject.
type SubjectIssuer struct {
	Name string `json:"name"` // in the configuration
	Kind string `json:"kind"`
	// Informed says that it may suggest when to renew (RFC 9773).
	Informed bool `json:"informed,omitempty"`
	// Limits and Turns are what this host asks of the issuer at most, and how far
	// that is used up. They are the same wherever the issuer is named.
	Limits Limits      `json:"limits,omitzero"`
	Turns  store.Turns `json:"turns,omitzero"`
}

// Place is one deployment of a Subject.
type Place struct {
	ID string `json:"id"`
	// Probed says that a deployment is verified by connecting to what serves it.
	Probed bool `json:"probed,omitempty"`
}

// omitted stands where something is left out whose presence alone counts.
const omitted = `{}`

// Subjects hands out a copy of every managed certificate, by name, and stops at
// the first error of yield, which it returns. Each copy is consistent in itself.
// What they have in common, the turns of the issuers, is that of the beginning.
func (e *Engine) Subjects(yield func(*Subject) error) error {
	now, concurrency, used := e.configured(), e.currentPace().Concurrency, e.turns.used()
	for _, name := range now.names {
		rec, found, err := e.cfg.Store.Certificate(name)
		if err != nil {
			return fmt.Errorf("copy of certificate %q: %w", name, err)
		}
		m := now.managed[name]
		if !found {
			rec = unknown(m)
		}
		if err := yield(subjectOf(m, rec, concurrency, used)); err != nil {
			return err
		}
	}
	return nil
}

// Rest is what an agent that is stopped has left.
type Rest struct {
	Records []*store.Certificate
	Turns   map[string]store.Turns // by issuer
}

// SubjectsOf does what Engine.Subjects does for a configuration and what is stored
// while no engine works on it. The records become the subjects', as a start at now
// would make them.
func SubjectsOf(list []Managed, rest Rest, concurrency int, now time.Time) ([]*Subject, error) {
	pace, err := Pace{Concurrency: concurrency}.checked()
	if err != nil {
		return nil, fmt.Errorf("renewal: %w", err)
	}
	known := make(map[string]*store.Certificate, len(rest.Records))
	for _, rec := range rest.Records {
		known[rec.Name] = rec
	}
	subjects := make([]*Subject, 0, len(list))
	for _, one := range list {
		m, err := newManaged(one)
		if err != nil {
			return nil, fmt.Errorf("renewal: %w", err)
		}
		rec := known[m.Name]
		if rec == nil {
			rec = unknown(m)
		}
		reconciled(rec, m, now, 0)
		subjects = append(subjects, subjectOf(m, rec, pace.Concurrency, rest.Turns))
	}
	return subjects, nil
}

// unknown is the record of a certificate that has none yet.
func unknown(m *managed) *store.Certificate {
	return &store.Certificate{Name: m.Name, Names: m.Names, Issuer: m.first().Name, IssuerKind: m.first().Issuer.Kind(), Phase: store.PhaseIdle}
}

func subjectOf(m *managed, rec *store.Certificate, concurrency int, used map[string]store.Turns) *Subject {
	s := &Subject{
		Record: rec, ConfigDigest: m.digest, KeyAlgorithm: m.KeyAlgorithm, Lifetime: m.Lifetime, Concurrency: concurrency,
	}
	for _, i := range m.Issuers {
		_, informed := i.Issuer.(issuer.RenewalInformer)
		s.Issuers = append(s.Issuers, SubjectIssuer{Name: i.Name, Kind: i.Issuer.Kind(), Informed: informed, Limits: i.Limits, Turns: used[i.Name]})
	}
	for _, d := range m.Deployments {
		s.Places = append(s.Places, Place{ID: d.ID, Probed: d.Target.Probed()})
	}
	for _, g := range []*store.Generation{rec.Previous, rec.Current, rec.Next} {
		if g != nil && g.ChainPEM != "" {
			g.ChainPEM = omitted
		}
	}
	rec.OrderState = presence(rec.OrderState)
	for id, d := range rec.Deployments {
		d.State = presence(d.State)
		rec.Deployments[id] = d
	}
	return s
}

func presence(state json.RawMessage) json.RawMessage {
	if state == nil {
		return nil
	}
	return json.RawMessage(omitted)
}

// managed is the subject as decisions take it. Its issuer and targets are none
// that could be called.
func (s *Subject) managed() *managed {
	m := &managed{digest: s.ConfigDigest, targets: make(map[string]deploy.Target, len(s.Places))}
	m.Name, m.Names, m.KeyAlgorithm = s.Record.Name, s.Record.Names, s.KeyAlgorithm
	m.Lifetime = s.Lifetime
	for _, i := range s.Issuers {
		var stand issuer.Issuer = standIn{kind: i.Kind}
		if i.Informed {
			stand = informedStandIn{standIn{kind: i.Kind}}
		}
		m.Issuers = append(m.Issuers, NamedIssuer{Name: i.Name, Issuer: stand, Limits: i.Limits})
	}
	for _, p := range s.Places {
		m.Deployments = append(m.Deployments, Deployment{ID: p.ID})
		m.targets[p.ID] = nil
	}
	return m
}

// standIn stands where decisions only ask what an issuer is.
type standIn struct{ kind string }

var errStandIn = errors.New("a drill calls no issuer; this is a bug, report it")

func (s standIn) Kind() string { return s.kind }

func (standIn) Issue(context.Context, *issuer.Order) (*issuer.Issued, error) { return nil, errStandIn }

// informedStandIn is one whose authority may suggest when to renew.
type informedStandIn struct{ standIn }

func (informedStandIn) RenewalInfo(context.Context, *x509.Certificate) (*issuer.RenewalInfo, error) {
	return nil, errStandIn
}

// record is a copy of the subject's record that shares nothing which a
// transition changes.
func (s *Subject) record() *store.Certificate {
	rec := *s.Record
	for _, g := range []**store.Generation{&rec.Previous, &rec.Current, &rec.Next} {
		if *g != nil {
			copied := **g
			*g = &copied
		}
	}
	if rec.RenewalInfo != nil {
		info := *rec.RenewalInfo
		rec.RenewalInfo = &info
	}
	rec.Deployments = maps.Clone(rec.Deployments)
	return &rec
}
