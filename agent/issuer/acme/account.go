package acme

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/shared/pki"
)

// KeyStore keeps private keys. Create returns when the key is durable.
type KeyStore interface {
	Create(algorithm pki.KeyAlgorithm) (id string, key crypto.Signer, err error)
	Load(id string) (crypto.Signer, error)
}

// StateStore keeps a JSON text for each issuer; nil for one without. Save
// returns when the text is durable.
type StateStore interface {
	IssuerState(issuer string) (json.RawMessage, error)
	SaveIssuerState(issuer string, state json.RawMessage) error
}

// accountState is what is stored under the issuer's name. A change of directory
// or binding begins another account and leaves the old one where it is, so that
// changing back finds it again.
type accountState struct {
	Accounts []accountRecord `json:"accounts"`
}

type accountRecord struct {
	Directory string   `json:"directory"`
	EABKeyID  string   `json:"eab_key_id,omitempty"`
	KeyID     string   `json:"key_id"`
	URL       string   `json:"url,omitempty"` // "" until the authority has named it
	Contact   []string `json:"contact,omitempty"`
}

// AccountKeyIDs lists the keys that an issuer's stored state refers to, which
// must not be swept away as orphans.
func AccountKeyIDs(stored json.RawMessage) ([]string, error) {
	state, err := parseAccountState(stored)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, record := range state.Accounts {
		ids = append(ids, record.KeyID)
	}
	return ids, nil
}

func parseAccountState(stored json.RawMessage) (accountState, error) {
	var state accountState
	if len(stored) == 0 {
		return state, nil
	}
	if err := json.Unmarshal(stored, &state); err != nil {
		return accountState{}, fmt.Errorf("stored ACME account: %w", err)
	}
	return state, nil
}

// accounts makes and remembers the issuer's account.
type accounts struct {
	config *Config
	log    *slog.Logger

	turn    chan struct{} // capacity 1: one account is made at a time; guards current
	current *acme.Account
}

func newAccounts(config *Config, log *slog.Logger) *accounts {
	return &accounts{config: config, log: log, turn: make(chan struct{}, 1)}
}

func (a *accounts) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case a.turn <- struct{}{}:
		return func() { <-a.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// get returns the account, and registers it first if necessary. Its key is
// durable before the authority hears of it, so a lost answer costs nothing: the
// authority answers a known key with the account that it has (RFC 8555 section
// 7.3.1).
func (a *accounts) get(ctx context.Context, s *session) (acme.Account, error) {
	unlock, err := a.lock(ctx)
	if err != nil {
		return acme.Account{}, err
	}
	defer unlock()
	if a.current != nil {
		return *a.current, nil
	}
	state, record, err := a.load()
	if err != nil {
		return acme.Account{}, err
	}
	key, err := a.key(state, record)
	if err != nil {
		return acme.Account{}, err
	}
	if record.URL == "" {
		if err := a.register(ctx, s, key, record); err != nil {
			return acme.Account{}, err
		}
		if err := a.save(state); err != nil {
			return acme.Account{}, err
		}
	}
	account := acme.Account{Status: acme.StatusValid, Location: record.URL, PrivateKey: key}
	// acmez cannot say "no contact any more", so that is left to the operator.
	if len(a.config.Contact) > 0 && !slices.Equal(record.Contact, a.config.Contact) {
		a.updateContact(ctx, s, account, state, record)
	}
	a.current = &account
	return account, nil
}

// load returns the stored state, and in it the record of the configured account,
// which is a new one without a key if there is none.
func (a *accounts) load() (*accountState, *accountRecord, error) {
	stored, err := a.config.State.IssuerState(a.config.Name)
	if err != nil {
		return nil, nil, fmt.Errorf("load the ACME account: %w", err)
	}
	state, err := parseAccountState(stored)
	if err != nil {
		return nil, nil, err
	}
	var eab string
	if a.config.EAB != nil {
		eab = a.config.EAB.KeyID
	}
	at := slices.IndexFunc(state.Accounts, func(r accountRecord) bool {
		return r.Directory == a.config.DirectoryURL && r.EABKeyID == eab
	})
	if at < 0 {
		at = len(state.Accounts)
		state.Accounts = append(state.Accounts, accountRecord{Directory: a.config.DirectoryURL, EABKeyID: eab})
	}
	return &state, &state.Accounts[at], nil
}

func (a *accounts) save(state *accountState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("save the ACME account: %w", err)
	}
	if err := a.config.State.SaveIssuerState(a.config.Name, text); err != nil {
		return fmt.Errorf("save the ACME account: %w", err)
	}
	return nil
}

func (a *accounts) key(state *accountState, record *accountRecord) (crypto.Signer, error) {
	if record.KeyID != "" {
		key, err := a.config.Keys.Load(record.KeyID)
		if err != nil {
			return nil, &issuer.Error{
				Class: issuer.ClassConfig,
				Err:   fmt.Errorf("load the key of the ACME account: %w", err),
				Mend:  "restore the key file, or rename the issuer in the configuration, which makes a new account",
			}
		}
		return key, nil
	}
	id, key, err := a.config.Keys.Create(pki.ECDSAP256)
	if err != nil {
		return nil, fmt.Errorf("make a key for the ACME account: %w", err)
	}
	record.KeyID = id
	return key, a.save(state)
}

func (a *accounts) register(ctx context.Context, s *session, key crypto.Signer, record *accountRecord) error {
	account := acme.Account{TermsOfServiceAgreed: true, Contact: mailto(a.config.Contact), PrivateKey: key}
	if a.config.EAB != nil {
		eab := acme.EAB{KeyID: a.config.EAB.KeyID, MACKey: a.config.EAB.macKey()}
		if err := account.SetExternalAccountBinding(ctx, s.client, eab); err != nil {
			// The error of acmez could repeat the secret.
			return &issuer.Error{Class: issuer.ClassConfig, Err: errors.New("external account binding cannot be made from eab.key_id and eab.hmac_key"), Mend: "enter both as the authority gave them"}
		}
	}
	err := call(ctx, stepAccount, func(ctx context.Context) error {
		var err error
		account, err = s.client.NewAccount(ctx, account)
		return err
	})
	if err != nil {
		return err
	}
	if account.Location == "" {
		return &issuer.Error{Class: issuer.ClassRetry, Err: fmt.Errorf("%s: the authority's answer names no account URL", stepAccount)}
	}
	if account.Status != "" && account.Status != acme.StatusValid {
		return &issuer.Error{
			Class: issuer.ClassRefused,
			Err:   fmt.Errorf("the ACME account %s is %s", account.Location, account.Status),
			Mend:  "rename the issuer in the configuration, which makes a new account",
		}
	}
	record.URL, record.Contact = account.Location, a.config.Contact
	a.log.Info("ACME account registered", "account", account.Location)
	return nil
}

// updateContact tells the authority about changed addresses (RFC 8555 section
// 7.3.2). No certificate has to wait for that: a failure is tried again after
// the next start.
func (a *accounts) updateContact(ctx context.Context, s *session, account acme.Account, state *accountState, record *accountRecord) {
	err := call(ctx, stepAccount, func(ctx context.Context) error {
		_, err := s.client.UpdateAccount(ctx, acme.Account{
			Contact: mailto(a.config.Contact), Location: account.Location, PrivateKey: account.PrivateKey,
		})
		return err
	})
	if err == nil {
		record.Contact = a.config.Contact
		err = a.save(state)
	}
	if err != nil {
		a.log.Warn("the contact of the ACME account could not be updated", "account", account.Location, "err", err)
	}
}

// forget drops the account URL, if it still is this one, so that the key is
// registered again.
func (a *accounts) forget(ctx context.Context, url string) error {
	unlock, err := a.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if a.current == nil || a.current.Location != url {
		return nil // somebody else was faster
	}
	state, record, err := a.load()
	if err != nil {
		return err
	}
	record.URL = ""
	if err := a.save(state); err != nil {
		return err
	}
	a.current = nil
	return nil
}

func mailto(addresses []string) []string {
	urls := make([]string, len(addresses))
	for n, address := range addresses {
		urls[n] = "mailto:" + address
	}
	return urls
}
