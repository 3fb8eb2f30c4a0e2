package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/shared/wire"
)

// Why the agent cannot be talked to. Errors that wrap them say how to mend it.
var (
	// ErrNotRunning says that nobody listens on the socket.
	ErrNotRunning = errors.New("the agent is not running")
	// ErrPermission says that this user may not open the socket.
	ErrPermission = errors.New("the control socket may not be opened by this user")
)

// maxAnswer bounds what a client reads: the status of a host with very many
// certificates.
const maxAnswer = 256 << 20

// Client talks to the agent that listens on one socket.
type Client struct {
	path string
	http *http.Client
}

// Dial makes a client and asks the agent whether it is there. Close it after
// use.
func Dial(ctx context.Context, path string) (*Client, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	c := &Client{path: path, http: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) },
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := c.call(ctx, http.MethodGet, "/v1/livez", nil, nil); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close drops the connection to the agent.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks how the agent is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	status := new(Status)
	if err := c.call(ctx, http.MethodGet, "/v1/status", nil, status); err != nil {
		return nil, err
	}
	return status, nil
}

// Certificate asks about one managed certificate. For an unknown name the error
// is a *wire.Problem with wire.CodeNotFound.
func (c *Client) Certificate(ctx context.Context, name string) (*Certificate, error) {
	certificate := new(Certificate)
	if err := c.call(ctx, http.MethodGet, "/v1/certificates/"+url.PathEscape(name), nil, certificate); err != nil {
		return nil, err
	}
	return certificate, nil
}

// Renew asks for a renewal now; underWay says that one had begun already. For an
// unknown name the error is a *wire.Problem with wire.CodeNotFound.
func (c *Client) Renew(ctx context.Context, name string) (underWay bool, err error) {
	var out renewAnswer
	err = c.call(ctx, http.MethodPost, "/v1/certificates/"+url.PathEscape(name)+"/renew", nil, &out)
	return out.UnderWay, err
}

// Reload has the configuration on disk put into effect. When that cannot be done
// the error is a *wire.Problem with wire.CodeInvalid, whose Detail says what is
// wrong there, one line for each finding.
func (c *Client) Reload(ctx context.Context) (*Reload, error) {
	done := new(Reload)
	if err := c.call(ctx, http.MethodPost, "/v1/reload", nil, done); err != nil {
		return nil, err
	}
	return done, nil
}

// Subjects asks for copies of what is known of each certificate, for a drill.
func (c *Client) Subjects(ctx context.Context) ([]*renewal.Subject, error) {
	var list []*renewal.Subject
	read := func(body io.Reader) error {
		decoder := json.NewDecoder(io.LimitReader(body, maxAnswer))
		for {
			var line subjectLine
			if err := decoder.Decode(&line); err != nil {
				return fmt.Errorf("the list of certificates broke off: %w; see the agent's log, and use the certctl-agent command of the same version as the running agent", err)
			}
			if line.End {
				return nil
			}
			if line.Subject == nil || line.Subject.Record == nil {
				return errors.New("the list of certificates cannot be read; use the certctl-agent command of the same version as the running agent")
			}
			if line.Subject.Concurrency == 0 {
				return errors.New("the running agent does not say what its limits are; restart it with the version of this command")
			}
			list = append(list, line.Subject)
		}
	}
	if err := c.call(ctx, http.MethodGet, "/v1/subjects", nil, read); err != nil {
		return nil, err
	}
	return list, nil
}

// Enroll lets the running agent exchange a token for an identity.
func (c *Client) Enroll(ctx context.Context, request EnrollRequest) (*Enrollment, error) {
	enrollment := new(Enrollment)
	body := enrollBody{Servers: request.Servers, Token: request.Token.Reveal(), Replace: request.Replace}
	if err := c.call(ctx, http.MethodPost, "/v1/enroll", body, enrollment); err != nil {
		return nil, err
	}
	return enrollment, nil
}

// call sends one request and decodes the answer into out, or has it read by out
// if that is a func(io.Reader) error. What the agent refuses is a *wire.Problem.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("control request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return fmt.Errorf("control request: %w", err)
	}
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return c.unreachable(err)
	}
	defer response.Body.Close()
	if lines, ok := out.(func(io.Reader) error); ok && response.StatusCode < 300 {
		if err := lines(response.Body); err != nil {
			return fmt.Errorf("control socket %s: %w", c.path, err)
		}
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("control socket %s: the answer broke off: %w; try again", c.path, err)
	}
	if len(text) > maxAnswer {
		return fmt.Errorf("control socket %s: the answer is larger than %d bytes", c.path, maxAnswer)
	}
	if response.StatusCode >= 300 {
		problem := &wire.Problem{Status: response.StatusCode}
		if err := json.Unmarshal(text, problem); err != nil || problem.Code == "" {
			return fmt.Errorf("control socket %s: %s is not an answer of certctl-agent; check control.socket", c.path, response.Status)
		}
		return problem
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("control socket %s: the answer cannot be read: %w; use the certctl-agent command of the same version as the running agent", c.path, err)
	}
	return nil
}

// unreachable names the mend for what keeps us from the agent.
func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("control socket %s: the agent does not answer: %w; see its log", c.path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %s; run the command as root, or as the user that the agent runs as", ErrPermission, c.path)
	case errors.Is(err, fs.ErrNotExist), nobodyListens(err):
		return fmt.Errorf("%w: nobody listens on %s; start it with \"certctl-agent start\" or \"certctl-agent run\", or check control.socket", ErrNotRunning, c.path)
	}
	return fmt.Errorf("control socket %s: %w", c.path, err)
}
