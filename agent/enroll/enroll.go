package enroll

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/agent/clock"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// DefaultTimeout bounds the exchange with the coordinator.
const DefaultTimeout = 30 * time.Second

// ErrEnrolled says that the host has an identity already.
var ErrEnrolled = errors.New("this host is already enrolled")

// Identities is where the identity is kept; *store.Store is one. What
// UpdateIdentity was asked to store survives a crash once it returns nil.
type Identities interface {
	UpdateIdentity(fn func(current *store.Identity) (*store.Identity, error), events ...wire.Event) error
}

// Keys makes and keeps private keys; *keys.Dir is one.
type Keys interface {
	Create(algorithm pki.KeyAlgorithm) (id string, key crypto.Signer, err error)
	Load(id string) (crypto.Signer, error)
	Remove(id string) error
}

// Config of one enrolment.
type Config struct {
	// Servers are the https URLs of the coordinator's nodes, such as
	// https://pki.example.com:8443, at least one. They are tried in this order.
	Servers []string
	Token   wire.EnrollmentToken
	// Replace gives up the identity that the host has, at this coordinator or
	// another one. A retired identity needs no permission to be replaced.
	Replace bool

	Store Identities
	Keys  Keys
	Host  wire.HostReport
	// Names is what the configuration wants from brokered issuers; see Wanted.
	Names pki.Names
	// Timeout bounds the exchange; 0 is DefaultTimeout.
	Timeout time.Duration
	// Clock is the time that the exchange goes by, and learns it from the
	// coordinator; nil is the wall clock.
	Clock *clock.Clock
	Log   *slog.Logger
}

func (c *Config) check() error {
	switch {
	case c.Store == nil:
		return errors.New("enrol: Store is missing")
	case c.Keys == nil:
		return errors.New("enrol: Keys is missing")
	case c.Log == nil:
		return errors.New("enrol: Log is missing")
	case c.Token.ID == "":
		return errors.New("enrol: the token is missing; give the one that \"certctl token create\" printed")
	case c.Timeout < 0:
		return fmt.Errorf("enrol: Timeout %v is negative", c.Timeout)
	}
	if len(c.Servers) == 0 || len(c.Servers) > wire.MaxServers {
		return &Error{Code: wire.CodeInvalid, Err: fmt.Errorf("%d servers; give 1 to %d, each as https://host:port", len(c.Servers), wire.MaxServers)}
	}
	var servers []string
	for _, text := range c.Servers {
		server, err := wire.ParseServer(text)
		if err != nil {
			return &Error{Code: wire.CodeInvalid, Err: err}
		}
		if !slices.Contains(servers, server) {
			servers = append(servers, server)
		}
	}
	c.Servers = servers
	return nil
}

// Enroll obtains and stores an identity. After any error or crash the host's
// present identity, if it has one, is as it was, and calling Enroll again with
// the same token continues.
//
// What the coordinator refuses is an *Error around a *wire.Problem; a host that
// is enrolled already gives one around ErrEnrolled.
func Enroll(ctx context.Context, cfg Config) (*store.Identity, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	log := cfg.Log.With("servers", cfg.Servers, "token_id", cfg.Token.ID)
	keyID, key, err := begin(&cfg)
	if err != nil {
		return nil, err
	}
	log.Info("enrolment begins", "key_id", keyID)
	answer, roots, err := ask(ctx, &cfg, key)
	if err != nil {
		log.Info("enrolment did not succeed", "err", err)
		return nil, err
	}
	leaf, err := CheckIdentity(answer.Chain, answer.Roots, key.Public(), cfg.now())
	if err != nil {
		return nil, fmt.Errorf("enrol: the coordinator's answer was not accepted: %w; report this, nothing was stored", err)
	}
	if err := checkAnswer(answer, cfg.Token, roots); err != nil {
		return nil, fmt.Errorf("enrol: the coordinator's answer was not accepted: %w; report this, nothing was stored", err)
	}

	identity := &store.Identity{
		AgentID: answer.AgentID, Servers: cfg.Servers, KeyID: keyID,
		ChainPEM: answer.Chain, RootsPEM: answer.Roots,
		NamePatterns: answer.NamePatterns, Labels: answer.Labels,
		RenewAt: DrawRenewAt(leaf, answer.ServerTime, rand.Float64()),
	}
	old, err := finish(&cfg, keyID, identity)
	if err != nil {
		return nil, err
	}
	for _, id := range old {
		if err := cfg.Keys.Remove(id); err != nil {
			// It is referred to no more, and the next sweep removes it.
			log.Warn("key of the replaced identity was not removed", "key_id", id, "err", err)
		}
	}
	log.Info("host is enrolled", "agent_id", identity.AgentID, "not_after", leaf.NotAfter)
	return identity, nil
}

// begin makes sure that a key for this token is on disk and recorded.
func begin(cfg *Config) (string, crypto.Signer, error) {
	var recorded *store.Enrolling
	err := cfg.Store.UpdateIdentity(func(current *store.Identity) (*store.Identity, error) {
		recorded = nil
		if current == nil {
			return nil, nil
		}
		if err := replaceable(current, cfg); err != nil {
			return nil, err
		}
		recorded = current.Enrolling
		return current, nil
	})
	if err != nil {
		return "", nil, err
	}
	if recorded != nil && recorded.TokenID == cfg.Token.ID {
		key, err := cfg.Keys.Load(recorded.KeyID)
		if err == nil {
			return recorded.KeyID, key, nil
		}
		if !errors.Is(err, keys.ErrNotFound) {
			return "", nil, fmt.Errorf("enrol: the key of the enrolment under way: %w", err)
		}
		cfg.Log.Warn("key of the enrolment under way is gone; another one is made", "key_id", recorded.KeyID)
	}
	id, key, err := cfg.Keys.Create(pki.DefaultKeyAlgorithm)
	if err != nil {
		return "", nil, fmt.Errorf("enrol: %w", err)
	}
	err = cfg.Store.UpdateIdentity(func(current *store.Identity) (*store.Identity, error) {
		if current == nil {
			current = new(store.Identity)
		}
		if err := replaceable(current, cfg); err != nil {
			return nil, err
		}
		current.Enrolling = &store.Enrolling{TokenID: cfg.Token.ID, KeyID: id}
		return current, nil
	})
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("enrol: record the key: %w", err), cfg.Keys.Remove(id))
	}
	if recorded != nil {
		if err := cfg.Keys.Remove(recorded.KeyID); err != nil {
			cfg.Log.Warn("key of an earlier enrolment was not removed", "key_id", recorded.KeyID, "err", err)
		}
	}
	return id, key, nil
}

func replaceable(current *store.Identity, cfg *Config) error {
	if current.AgentID == "" || current.Retired || cfg.Replace {
		return nil
	}
	return &Error{
		Err:  fmt.Errorf("%w as agent %s at %s", ErrEnrolled, current.AgentID, strings.Join(current.Servers, ", ")),
		Mend: "use --replace to give that identity up for a new one",
	}
}

// finish puts the new identity in the place of the old one, and returns the ids
// of the keys that nothing refers to any more.
func finish(cfg *Config, keyID string, identity *store.Identity) (old []string, err error) {
	err = cfg.Store.UpdateIdentity(func(current *store.Identity) (*store.Identity, error) {
		old = nil
		if current == nil || current.Enrolling == nil || current.Enrolling.KeyID != keyID {
			return nil, errors.New("enrol: another enrolment of this host took place meanwhile; look at the result, and begin again if it is not wanted")
		}
		if err := replaceable(current, cfg); err != nil {
			return nil, err
		}
		if current.KeyID != "" {
			old = append(old, current.KeyID)
		}
		if current.Pending != nil {
			old = append(old, current.Pending.KeyID)
		}
		return identity, nil
	})
	return old, err
}
