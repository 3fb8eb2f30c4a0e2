package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	// stallPatience is how long a transfer may stand still.
	stallPatience = 2 * time.Minute
	// workPatience is how long the coordinator may work on what it was sent.
	workPatience = 35 * time.Minute
)

// ErrStalled says that a transfer stood still.
var ErrStalled = errors.New("the transfer stands still")

// fetch makes a read whose answer, of most octets, is written to out as it comes. It may take any
// time, as long as it goes on. When it fails, something may be written.
func fetch(ctx context.Context, c *Client, r call, out io.Writer, most int64, options []Option) error {
	r.with(options)
	ctx, watch := watched(ctx)
	defer watch.end()
	build := func(ctx context.Context, base *url.URL) (*http.Request, error) {
		return r.request(ctx, c, base, "", nil)
	}
	_, err := c.exchange(ctx, exchange{by: c.patient(), make: build, told: r.answered, out: watchedWriter{watch, out}, most: most, once: true})
	return watch.explain(ctx, err)
}

// send makes a change whose content is a stream. It may take any time, as long as it
// goes on; then the coordinator has half an hour to work on it.
func send[T any](ctx context.Context, c *Client, r call, contentType string, in io.Reader, options []Option) (*T, error) {
	r.with(options)
	out := new(T)
	if err := c.send(ctx, &r, contentType, in, out); err != nil {
		return nil, err
	}
	return out, nil
}

func (c *Client) send(ctx context.Context, r *call, contentType string, in io.Reader, out any) error {
	ctx, watch := watched(ctx)
	defer watch.end()
	var body *onceReader
	build := func(ctx context.Context, base *url.URL) (*http.Request, error) {
		// Nothing is read of it before there is a connection.
		body = &onceReader{r: watchedReader{watch, in}}
		return r.request(ctx, c, base, contentType, body)
	}
	var text bytes.Buffer
	base, err := c.exchange(ctx, exchange{by: c.patient(), make: build, told: r.answered, out: &text, most: maxAnswer, spent: func() bool { return body.spent() }})
	if err = watch.explain(ctx, err); err != nil || out == nil {
		return err
	}
	return decode(base, &text, out)
}

// patient is the client without a limit for a whole request.
func (c *Client) patient() *http.Client {
	patient := *c.http
	patient.Timeout = 0
	return &patient
}

// A watch ends a context when nothing happens.
type watch struct {
	timer *time.Timer
	end   func()
}

func watched(ctx context.Context) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{timer: time.AfterFunc(stallPatience, func() { cancel(ErrStalled) })}
	w.end = func() {
		w.timer.Stop()
		cancel(nil)
	}
	return ctx, w
}

// explain puts the reason in place of what it led to.
func (w *watch) explain(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), ErrStalled) {
		return fmt.Errorf("%w: %w; try again", ErrUnreachable, ErrStalled)
	}
	return err
}

type watchedWriter struct {
	watch *watch
	w     io.Writer
}

// Write implements io.Writer.
func (w watchedWriter) Write(b []byte) (int, error) {
	w.watch.timer.Reset(stallPatience)
	return w.w.Write(b)
}

type watchedReader struct {
	watch *watch
	r     io.Reader
}

// Read implements io.Reader.
func (r watchedReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	patience := stallPatience
	if err != nil {
		patience = workPatience // all is sent
	}
	r.watch.timer.Reset(patience)
	return n, err
}

// A onceReader is a stream that is read for one request, or kept for another one:
// what comes first counts, as requests are written while the answer is read.
type onceReader struct {
	r     io.Reader
	state atomic.Int32 // 0, or wasRead or isKept
}

const (
	wasRead = 1
	isKept  = 2
)

// Read implements io.Reader.
func (r *onceReader) Read(b []byte) (int, error) {
	if !r.state.CompareAndSwap(0, wasRead) && r.state.Load() == isKept {
		return 0, errors.New("the request has ended")
	}
	return r.r.Read(b)
}

// spent reports whether anything was read, and ends the reading if nothing was.
func (r *onceReader) spent() bool {
	return !r.state.CompareAndSwap(0, isKept) && r.state.Load() == wasRead
}
