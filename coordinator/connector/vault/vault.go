// Package vault has certificates signed by the PKI secrets engine of HashiCorp Vault or
// of OpenBao, which speak the same dialect.
//
// It is the connector of the synchronous kind: the answer to an order is its
// certificate, nothing waits for a person, and an order is named by the serial number
// of its certificate. Such an authority is one's own. To sign again costs nothing, so
// that an order whose answer is lost is placed again: see [Connector.Repeatable].
package vault

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
)

const (
	// defaultVisible is how long a certificate may take to be listed by another node of
	// a cluster than the one that signed it.
	defaultVisible = time.Minute
	// skew is what the clocks may differ, with what roles put the begin of a
	// certificate's validity back by.
	skew = 15 * time.Minute
	// early is how long before its end a token is not used any more, and tokenLife how
	// long one is that has no end.
	early     = 30 * time.Second
	tokenLife = time.Hour
)

// Config of a Connector. URL, Mount, Role and either Token or RoleID and SecretID are
// required.
type Config struct {
	// URL is the server's, without /v1.
	URL string
	// Namespace of the mount, in the servers that have some; "" is the root.
	Namespace string
	// Mount is where the secrets engine is mounted, such as pki or pki/web.
	Mount string
	// Role says what may be signed.
	Role string
	// Issuer is the issuer's name or id, where it is not the one that the role names.
	Issuer string
	// Token is read anew for each request, so that a file of it may be kept fresh by
	// the vendor's agent.
	Token func() (string, error)
	// RoleID and SecretID log in by AppRole instead, and are read anew for each login;
	// AppRoleMount is where that method is mounted, "" is approle.
	RoleID, SecretID func() (string, error)
	AppRoleMount     string
	// Validity where the order does not say; 0 leaves it to the role.
	Validity time.Duration
	// PlaceOnce is for mounts at which a signature costs something, such as one that
	// passes orders on or a licence that counts certificates. A lost order is then
	// searched for, and not placed again before it is known not to be there.
	PlaceOnce bool
	// NoStore says that the role keeps no certificates (no_store): a search proves
	// nothing, and nothing can be revoked by its serial number.
	NoStore bool
	// Visible is how long a certificate may take to be listed; 0 is a minute.
	Visible time.Duration

	Roots   *x509.CertPool
	Timeout time.Duration
	Now     func() time.Time
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

// Connector speaks with one role of one mount. It is safe for concurrent use.
type Connector struct {
	config Config
	mount  []string
	client *connector.Client
	keys   connector.Keys
	token  *connector.Cached[string] // of a login

	shown sync.Mutex // of last
	last  string     // the token of the last login, which no error may show
}

var _ interface {
	connector.Connector
	connector.Searcher
	connector.Repeater
	connector.Revoker
	connector.Completer
} = (*Connector)(nil)

// New checks c. Close ends its connections.
func New(c Config) (*Connector, error) {
	base, err := url.Parse(c.URL)
	mount := strings.Split(strings.Trim(c.Mount, "/"), "/")
	approle := c.RoleID != nil || c.SecretID != nil
	switch {
	case err != nil || base.Host == "":
		return nil, fmt.Errorf("vault: url: %q is no URL; it is the server's, such as https://vault.example.com:8200", c.URL)
	case strings.Trim(base.Path, "/") == "v1":
		return nil, fmt.Errorf("vault: url: %q: leave out /v1", c.URL)
	case !plain(mount...):
		return nil, fmt.Errorf("vault: mount: %q is no path; it is where the secrets engine is mounted, such as pki", c.Mount)
	case !plain(c.Role):
		return nil, fmt.Errorf("vault: role: %q is no name of a role of the mount", c.Role)
	case c.Issuer != "" && !plain(c.Issuer):
		return nil, fmt.Errorf("vault: issuer: %q is neither a name nor an id", c.Issuer)
	case c.Namespace != "" && !plain(strings.Split(strings.Trim(c.Namespace, "/"), "/")...):
		return nil, fmt.Errorf("vault: namespace: %q is no path", c.Namespace)
	case approle == (c.Token != nil):
		return nil, errors.New("vault: give a token, or a role id and a secret id of AppRole, and not both")
	case approle && (c.RoleID == nil || c.SecretID == nil):
		return nil, errors.New("vault: AppRole takes a role id and a secret id; one of them is missing")
	case c.Validity < 0 || c.Validity > 0 && c.Validity < time.Minute:
		return nil, fmt.Errorf("vault: validity: %v; give a minute at least", c.Validity)
	}
	if c.AppRoleMount == "" {
		c.AppRoleMount = "approle"
	}
	if !plain(strings.Split(c.AppRoleMount, "/")...) {
		return nil, fmt.Errorf("vault: mount of AppRole: %q is no path", c.AppRoleMount)
	}
	if c.Visible == 0 {
		c.Visible = defaultVisible
	}
	if c.NoStore {
		c.Visible = -1
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	v := &Connector{config: c, mount: mount, token: connector.NewCached[string](c.Now)}
	v.client, err = connector.NewClient(connector.ClientConfig{
		BaseURL: base, Roots: c.Roots, Timeout: c.Timeout, Now: c.Now, Dial: c.Dial, Authorize: v.authorize, Problem: problem, Secrets: v.secrets,
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

// plain reports whether every part can be one of a path.
func plain(parts ...string) bool {
	for _, part := range parts {
		if !oneLine(part) || part == "." || part == ".." || strings.ContainsAny(part, "/?#%") {
			return false
		}
	}
	return true
}

func oneLine(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// Close ends the idle connections.
func (v *Connector) Close() { v.client.Close() }

// path is one beneath the mount.
func (v *Connector) path(rest ...string) []string {
	return append(append([]string{"v1"}, v.mount...), rest...)
}

// header goes with every request: the first field keeps out those that somebody makes a
// browser or a proxy send.
func (v *Connector) header() http.Header {
	header := http.Header{"X-Vault-Request": {"true"}}
	if v.config.Namespace != "" {
		header["X-Vault-Namespace"] = []string{strings.Trim(v.config.Namespace, "/")}
	}
	return header
}

func credential(name string, read func() (string, error)) (string, error) {
	text, err := read()
	text = strings.TrimSpace(text)
	mend := "mend the issuer's " + name
	switch {
	case err != nil:
		return "", &connector.Error{Class: connector.ClassCredentials, NotPlaced: true, Err: fmt.Errorf("the %s: %w", name, err), Mend: mend}
	case !oneLine(text):
		return "", &connector.Error{Class: connector.ClassCredentials, NotPlaced: true, Err: fmt.Errorf("the %s is empty, or is not of one line of ASCII", name), Mend: mend}
	}
	return text, nil
}

func (v *Connector) authorize(ctx context.Context, r *http.Request) error {
	var token string
	var err error
	if v.config.Token != nil {
		token, err = credential("token", v.config.Token)
	} else {
		token, err = v.token.Get(ctx, v.login)
	}
	if err != nil {
		return err
	}
	r.Header.Set("X-Vault-Token", token)
	return nil
}

// login asks for a token by AppRole.
func (v *Connector) login(ctx context.Context) (string, time.Duration, error) {
	role, err := credential("role id", v.config.RoleID)
	if err != nil {
		return "", 0, err
	}
	secret, err := credential("secret id", v.config.SecretID)
	if err != nil {
		return "", 0, err
	}
	path := append(append([]string{"v1", "auth"}, strings.Split(v.config.AppRoleMount, "/")...), "login")
	answer, err := v.client.Do(ctx, connector.Call{
		Method: http.MethodPost, Path: path, Body: map[string]string{"role_id": role, "secret_id": secret}, Header: v.header(), Anonymous: true,
	})
	if err != nil {
		return "", 0, err
	}
	var body struct {
		Auth struct {
			Token string  `json:"client_token"`
			Lasts float64 `json:"lease_duration"`
		} `json:"auth"`
	}
	if err := answer.Decode(&body); err != nil {
		return "", 0, err
	}
	if !oneLine(body.Auth.Token) {
		return "", 0, &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Err: errors.New("the server sent no token")}
	}
	v.shown.Lock()
	v.last = body.Auth.Token
	v.shown.Unlock()
	lasts := tokenLife
	if body.Auth.Lasts > 0 {
		lasts = min(lasts, time.Duration(min(body.Auth.Lasts, tokenLife.Seconds()))*time.Second)
	}
	return body.Auth.Token, max(lasts-early, lasts/2), nil
}

// do makes a call. The token of a login that the server does not take any more is
// replaced, once: what is answered so has not been acted upon. The server has one
// answer for a token that has ended and for one that may not.
func (v *Connector) do(ctx context.Context, call connector.Call) (*connector.Answer, error) {
	call.Header = v.header()
	if v.config.Token != nil {
		return v.client.Do(ctx, call)
	}
	for {
		used, held := v.token.Fresh()
		// Before the call: whatever is sent by then is none of it.
		if _, err := v.token.Get(ctx, v.login); err != nil {
			e := *connector.Classify(err)
			e.NotPlaced = true
			return nil, &e
		}
		answer, err := v.client.Do(ctx, call)
		if err == nil || !held || connector.Classify(err).Class != connector.ClassCredentials {
			return answer, err
		}
		v.token.Drop(func(token string) bool { return token == used })
	}
}

func (v *Connector) secrets() []string {
	v.shown.Lock()
	list := []string{v.last}
	v.shown.Unlock()
	for _, read := range []func() (string, error){v.config.Token, v.config.SecretID, v.config.RoleID} {
		if read == nil {
			continue
		}
		if text, err := read(); err == nil {
			list = append(list, strings.TrimSpace(text))
		}
	}
	return list
}
