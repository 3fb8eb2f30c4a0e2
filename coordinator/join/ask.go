package join

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

const attemptPatience = 30 * time.Second

var askRetry = backoff.Policy{Initial: time.Second, Max: 15 * time.Second, Multiplier: 2, Jitter: 0.5}

// ErrRefused says that the cluster does not let the node in; asking again with
// the same token is of no use. The cause is a *wire.Problem.
var ErrRefused = errors.New("the cluster does not let this node in")

// Ask asks the nodes that a token names, one after the other, until one answers
// or ctx is done. It may be repeated with the same key. Errors wrap ErrRefused,
// tlsutil.ErrPinMismatch or ctx's error.
func Ask(ctx context.Context, token jointoken.Token, node Node, log *slog.Logger) (*Admission, error) {
	body, err := json.Marshal(request{Protocol: protocol, Token: token.Reveal(), Node: node})
	if err != nil {
		return nil, fmt.Errorf("join: encode the request: %w", err)
	}
	for attempt := 1; ; attempt++ {
		server := token.URLs[(attempt-1)%len(token.URLs)]
		admission, err := askOne(ctx, server, token, body)
		if err == nil {
			log.Info("the cluster lets this node in", "server", server, "members", len(admission.Members))
			return admission, nil
		}
		if errors.Is(err, ErrRefused) || errors.Is(err, tlsutil.ErrPinMismatch) {
			return nil, err
		}
		pause := askRetry.Delay(attempt/len(token.URLs)+1, nil)
		if p, ok := errors.AsType[*wire.Problem](err); ok && p.RetryAfterSeconds > 0 {
			pause = max(pause, time.Duration(min(p.RetryAfterSeconds, 60))*time.Second)
		}
		log.Warn("the cluster was asked to let this node in, and did not answer; it is asked again", "server", server, "err", err, "retry_in", pause)
		if waited := backoff.Wait(ctx, pause); waited != nil {
			return nil, fmt.Errorf("join: %w; the last answer: %w", waited, err)
		}
	}
}

// askOne sends one request. Refusals that waiting does not change wrap
// ErrRefused.
func askOne(ctx context.Context, server string, token jointoken.Token, body []byte) (*Admission, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err) // checked when the token was read
	}
	pin := tlsutil.PinnedRoot(token.RootPin)
	config, err := tlsutil.ClientConfig(tlsutil.ClientOptions{Pin: &pin, ServerName: u.Hostname()})
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport: transport, Timeout: attemptPatience,
		// A redirect would carry the token to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(server, "/")+Path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	post.Header.Set("Content-Type", "application/json")
	response, err := client.Do(post)
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", server, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("join %s: the answer broke off: %w", server, err)
	case len(text) > maxAnswer:
		return nil, fmt.Errorf("join %s: the answer is larger than %d bytes", server, maxAnswer)
	case response.StatusCode != http.StatusOK:
		return nil, refusal(server, response.StatusCode, text)
	}
	return readAnswer(text)
}

func refusal(server string, status int, text []byte) error {
	p := new(wire.Problem)
	if json.Unmarshal(text, p) != nil || p.Code == "" {
		return fmt.Errorf("join %s: answered %d without saying why; is this a coordinator?", server, status)
	}
	p.Status = status
	if status >= http.StatusInternalServerError || status == http.StatusTooManyRequests {
		return fmt.Errorf("join %s: %w", server, p)
	}
	if status == http.StatusNotFound {
		return fmt.Errorf("%w: %s runs a version that knows no clusters: upgrade it first: %w", ErrRefused, server, p)
	}
	return fmt.Errorf("%w: %w", ErrRefused, p)
}

// readAnswer reads an answer and checks that all of it is there.
func readAnswer(text []byte) (*Admission, error) {
	var granted answer
	if err := json.Unmarshal(text, &granted); err != nil {
		return nil, fmt.Errorf("join: the answer cannot be read: %w", err)
	}
	admission := &Admission{ClusterID: granted.ClusterID, SealKeyID: granted.SealID, Members: granted.Members, Configuration: granted.Configuration}
	switch {
	case granted.Protocol != protocol:
		return nil, fmt.Errorf("%w: it answers in version %d of the join protocol, this node knows %d: install the same version on all nodes", ErrRefused, granted.Protocol, protocol)
	case len(granted.Authorities) == 0 || len(granted.Authorities) > fleet.MaxClusterAuthorities:
		return nil, fmt.Errorf("join: the answer holds %d roots of the cluster", len(granted.Authorities))
	case len(granted.Members) == 0 || len(granted.Members) > maxMembers:
		return nil, fmt.Errorf("join: the answer names %d nodes", len(granted.Members))
	case granted.SealID == "":
		return nil, errors.New("join: the answer does not name the seal key")
	}
	for _, m := range granted.Members {
		if m.ID == "" {
			return nil, errors.New("join: the answer names a node without an id")
		}
		if err := checkAddress(m.Address); err != nil {
			return nil, fmt.Errorf("join: the node %.64q: %w", m.ID, err)
		}
		if len(m.Key) > sha256.Size*2 {
			return nil, fmt.Errorf("join: the node %.64q has a key of another kind", m.ID)
		}
	}
	admission.ClusterCA.ModifyIndex = granted.ModifyIndex
	for _, a := range granted.Authorities {
		admission.ClusterCA.Authorities = append(admission.ClusterCA.Authorities, fleet.ClusterAuthority{Certificate: a.Certificate, SealedKey: a.SealedKey, State: a.State})
	}
	if granted.SealKey != "" {
		key, err := ca.ParseSealKey(granted.SealKey)
		if err != nil {
			return nil, fmt.Errorf("join: the answer's seal key: %w", err)
		}
		if key.String() != granted.SealID {
			return nil, errors.New("join: the answer's seal key is not the one that it names")
		}
		admission.SealKey = &key
	}
	return admission, nil
}
