package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/wire"
)

// ErrNotModified says that the answer is the one whose entity tag was given; see
// [IfNoneMatch].
var ErrNotModified = errors.New("the answer is still the same")

// Answer is what an answer tells beside its document.
type Answer struct {
	// Index is how far the node that answered had applied the cluster's log: the answer
	// shows every change up to there. 0 if it does not say.
	Index uint64
	// ETag is the answer's entity tag, "" if it has none.
	ETag string
}

// Option is something about one call.
type Option func(*call)

// Note has a call say what its answer tells beside the document. Of a list it is that of the page
// that came last.
func Note(answer *Answer) Option { return func(c *call) { c.note = answer } }

// IfNoneMatch has a read fail with [ErrNotModified] as long as its answer has this entity
// tag, which costs the coordinator next to nothing. An empty tag changes nothing.
func IfNoneMatch(tag string) Option { return func(c *call) { c.ifNoneMatch = tag } }

// AtLeast has a read wait until the node that answers has applied the cluster's log up to this
// index, which an [Answer] has. What the client itself has changed it sees anyway.
func AtLeast(index uint64) Option { return func(c *call) { c.index = max(c.index, index) } }

// Consistently has a read show every change that was acknowledged before, whoever made
// it. It needs a leader.
func Consistently() Option { return func(c *call) { c.consistent = true } }

// call is one request to whichever server answers it.
type call struct {
	method string
	path   string // escaped
	query  parameters
	in     any    // document; nil is none
	accept string // "" is a document

	note        *Answer
	ifNoneMatch string
	index       uint64
	consistent  bool
}

func (r *call) with(options []Option) {
	for _, option := range options {
		option(r)
	}
}

// request is the call as a request to one server.
func (r *call) request(ctx context.Context, c *Client, base *url.URL, contentType string, body io.Reader) (*http.Request, error) {
	if strings.HasSuffix(r.path, "/") || strings.Contains(r.path, "//") {
		return nil, errors.New("a parameter of the path is empty: each of them has to be given")
	}
	request, err := http.NewRequestWithContext(ctx, r.method, base.String()+r.path, body)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	request.URL.RawQuery = c.fresh(r).Encode()
	if body != nil {
		request.Header.Set("Content-Type", contentType)
	}
	request.Header.Set("Accept", "application/json")
	if r.accept != "" {
		request.Header.Set("Accept", r.accept+", application/problem+json")
	}
	if r.ifNoneMatch != "" && r.method == http.MethodGet {
		request.Header.Set("If-None-Match", r.ifNoneMatch)
	}
	return request, nil
}

// answered notes what the header of an answer says.
func (r *call) answered(header http.Header) {
	if r.note != nil {
		index, _ := strconv.ParseUint(header.Get(resource.Index), 10, 64) // absent of a coordinator of an earlier version
		*r.note = Answer{Index: index, ETag: header.Get("ETag")}
	}
}

// ask makes a call whose answer is a document.
func ask[T any](ctx context.Context, c *Client, r call, options []Option) (*T, error) {
	r.with(options)
	out := new(T)
	if err := c.do(ctx, &r, out); err != nil {
		return nil, err
	}
	return out, nil
}

// do makes a call; out may be nil.
func (c *Client) do(ctx context.Context, r *call, out any) error {
	var content []byte
	if r.in != nil {
		var err error
		if content, err = json.Marshal(r.in); err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
	}
	var text bytes.Buffer
	build := func(ctx context.Context, base *url.URL) (*http.Request, error) {
		text.Reset()
		var body io.Reader
		if r.in != nil {
			body = bytes.NewReader(content)
		}
		return r.request(ctx, c, base, "application/json", body)
	}
	for waited := time.Duration(0); ; {
		base, err := c.exchange(ctx, exchange{by: c.http, make: build, told: r.answered, out: &text, most: maxAnswer, each: readPatience})
		if err != nil {
			pause, worth := r.pause(err)
			if waited += pause; !worth || waited > waitPatience {
				return err
			}
			c.waits(pause, err)
			if backoff.Wait(ctx, pause) != nil {
				return err
			}
			continue
		}
		if out == nil {
			return nil
		}
		return decode(base, &text, out)
	}
}

// pause is how long a read that was refused waits before it is sent again, if that is
// worth it.
func (r *call) pause(err error) (pause time.Duration, worth bool) {
	refusal, ok := errors.AsType[*wire.Problem](err)
	if !ok || r.method != http.MethodGet || refusal.Code != wire.CodeRateLimited || refusal.RetryAfterSeconds <= 0 || refusal.RetryAfterSeconds > int64(waitPatience/time.Second) {
		return 0, false
	}
	return time.Duration(refusal.RetryAfterSeconds) * time.Second, true
}

func decode(base *url.URL, text *bytes.Buffer, out any) error {
	if err := json.Unmarshal(text.Bytes(), out); err != nil {
		return fmt.Errorf("the answer of %s cannot be read: %w; use a certctl of the coordinator's version", base, err)
	}
	return nil
}

// Lister is the parameters of a list of T, of which each list has its own.
type Lister[T any] interface {
	page(ctx context.Context, c *Client, at place, options []Option) (*resource.Page[T], error)
}

// place is where a page of a list begins, and how long it is. The zero value is what the
// parameters say.
type place struct {
	cursor string
	limit  int
}

func (p place) put(cursor *string, limit *int) {
	if p.cursor != "" {
		*cursor = p.cursor
	}
	if p.limit > 0 {
		*limit = p.limit
	}
	if *limit == 0 {
		*limit = PageSize
	}
}

// Collect goes through a list until limit items are there, or to its end if limit is 0. more
// reports whether there are others.
func Collect[T any](ctx context.Context, c *Client, list Lister[T], limit int, options ...Option) (items []T, more bool, err error) {
	more, err = Pages(ctx, c, list, limit, func(page []T) error {
		items = append(items, page...)
		return nil
	}, options...)
	if err != nil {
		return nil, false, err
	}
	return items, more, nil
}

// Pages hands on one page after the other, of limit items together, or of all of them
// if limit is 0. more reports whether there are others.
func Pages[T any](ctx context.Context, c *Client, list Lister[T], limit int, use func(page []T) error, options ...Option) (more bool, err error) {
	had := 0
	for at := (place{}); ; {
		if limit > 0 {
			at.limit = min(PageSize, limit-had)
		}
		page, err := list.page(ctx, c, at, options)
		if err != nil {
			return false, err
		}
		if limit > 0 && len(page.Items) > at.limit { // more than was asked for
			page.Items, page.NextCursor = page.Items[:at.limit], cmp.Or(page.NextCursor, "more")
		}
		if err := use(page.Items); err != nil {
			return false, err
		}
		had += len(page.Items)
		switch {
		case page.NextCursor == "":
			return false, nil
		case limit > 0 && had >= limit:
			return true, nil
		}
		if at, err = at.next(page.NextCursor); err != nil {
			return false, err
		}
	}
}

func (p place) next(cursor string) (place, error) {
	if cursor == p.cursor {
		return p, errors.New("the list does not end; use a certctl of the coordinator's version")
	}
	p.cursor = cursor
	return p, nil
}

// all goes through a list.
func all[T any](ctx context.Context, c *Client, list Lister[T], options []Option) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		for at := (place{}); ; {
			page, err := list.page(ctx, c, at, options)
			if err != nil {
				yield(none, err)
				return
			}
			for i := range page.Items {
				if !yield(page.Items[i], nil) {
					return
				}
			}
			if page.NextCursor == "" {
				return
			}
			if at, err = at.next(page.NextCursor); err != nil {
				yield(none, err)
				return
			}
		}
	}
}

// parameters are those of a query. What is zero is left out.
type parameters url.Values

func (p parameters) text(name, value string) {
	if value != "" {
		p[name] = []string{value}
	}
}

func (p parameters) repeated(name string, values []string) {
	if len(values) > 0 {
		p[name] = values
	}
}

func (p parameters) joined(name string, values []string) { p.text(name, strings.Join(values, ",")) }

func (p parameters) flag(name string, value bool) {
	if value {
		p[name] = []string{"true"}
	}
}

func (p parameters) number(name string, value int) {
	if value != 0 {
		p[name] = []string{strconv.Itoa(value)}
	}
}

func (p parameters) count(name string, value uint64) {
	if value != 0 {
		p[name] = []string{strconv.FormatUint(value, 10)}
	}
}

func (p parameters) moment(name string, value time.Time) {
	if !value.IsZero() {
		p[name] = []string{value.UTC().Format(time.RFC3339Nano)}
	}
}
