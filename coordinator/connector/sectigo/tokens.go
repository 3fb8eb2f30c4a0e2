package sectigo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/connector"
)

// early is how long before its end a token is not used any more.
const early = 30 * time.Second

// tokens holds the access token of an account (RFC 6749 section 4.4). It is safe for
// concurrent use; the lock is held over a request for a token, so that one is asked
// for at a time.
type tokens struct {
	config Config
	client *connector.Client

	lock  chan struct{} // of the fields below; a channel, as waiting ends with a context
	token string
	until time.Time

	shown sync.Mutex // of last
	last  string     // what no error may show
}

func newTokens(c Config) (*tokens, error) {
	base, err := url.Parse(c.TokenURL)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("sectigo: token url: %q is no URL; it is %s for most accounts", c.TokenURL, URLToken)
	}
	t := &tokens{config: c, lock: make(chan struct{}, 1)}
	t.client, err = connector.NewClient(connector.ClientConfig{
		BaseURL: base, Roots: c.Roots, Timeout: c.Timeout, Now: c.Now, Dial: c.Dial, Problem: tokenProblem, Secrets: t.secrets,
	})
	return t, err
}

func (t *tokens) get(ctx context.Context) (string, error) {
	select {
	case t.lock <- struct{}{}:
	case <-ctx.Done():
		return "", &connector.Error{Class: connector.ClassRetry, NotPlaced: true, Err: ctx.Err()}
	}
	defer func() { <-t.lock }()
	if t.token != "" && t.config.Now().Before(t.until) {
		return t.token, nil
	}
	password, err := secret("client secret", t.config.ClientSecret)
	if err != nil {
		return "", err
	}
	answer, err := t.client.Do(ctx, connector.Call{Method: http.MethodPost, Form: url.Values{
		"grant_type": {"client_credentials"}, "client_id": {t.config.ClientID}, "client_secret": {password},
	}})
	if err != nil {
		return "", err
	}
	var body struct {
		Token   string  `json:"access_token"`
		Expires float64 `json:"expires_in"`
	}
	if err := answer.Decode(&body); err != nil {
		return "", err
	}
	if body.Token == "" {
		return "", &connector.Error{Class: connector.ClassAnswer, Status: answer.Status, Err: errors.New("the authorization server sent no token")}
	}
	t.token, t.until = body.Token, t.config.Now().Add(time.Duration(min(max(body.Expires, 0), 86400))*time.Second-early)
	t.shown.Lock()
	t.last = body.Token
	t.shown.Unlock()
	return t.token, nil
}

// drop forgets the token, and reports whether there was one to forget.
func (t *tokens) drop() bool {
	t.lock <- struct{}{}
	defer func() { <-t.lock }()
	had := t.token != ""
	t.token = ""
	return had
}

func (t *tokens) secrets() []string {
	t.shown.Lock()
	list := []string{t.last}
	t.shown.Unlock()
	if text, err := t.config.ClientSecret(); err == nil {
		list = append(list, text)
	}
	return list
}

// tokenProblem reads an error of RFC 6749 section 5.2.
func tokenProblem(a *connector.Answer) *connector.Error {
	var body struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if !a.Reads(&body) || body.Error == "" {
		return nil
	}
	e := &connector.Error{Code: body.Error, Detail: body.Description}
	if a.Status/100 == 4 && a.Status != http.StatusTooManyRequests {
		e.Class, e.Mend = connector.ClassCredentials, "check the issuer's client id and client secret"
	}
	return e
}
