package fakeca

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Op is what a request is about.
type Op string

// What requests are about. A dialect may have others of its own.
const (
	Place    Op = "place"
	Reissue  Op = "reissue"
	Status   Op = "status"
	Collect  Op = "collect"
	Search   Op = "search"
	Cancel   Op = "cancel"
	Revoke   Op = "revoke"
	Validate Op = "validate"
	Login    Op = "login"
	Other    Op = "other"
	Any      Op = "" // in a script
)

// Kind is what goes wrong with one request.
type Kind string

// Kinds of faults. Those before the line change nothing at the authority; with
// those after it the request is acted upon, and what is wrong is the answer.
const (
	Refuse  Kind = "refuse"  // Fault.Status in the vendor's form
	Page    Kind = "page"    // a page of a proxy, with Fault.Status, that shows what it got
	Hang    Kind = "hang"    // no answer until the other side gives up
	Dropped Kind = "dropped" // the connection ends

	Lost      Kind = "lost"       // the connection ends
	LostSlow  Kind = "lost_slow"  // no answer until the other side gives up
	Cut       Kind = "cut"        // the connection ends within the body
	Half      Kind = "half"       // half of the body, in an answer that is whole
	Huge      Kind = "huge"       // a body of more than a mebibyte
	PageAfter Kind = "page_after" // as Page
)

// hugeBody is larger than whatever a client should read.
const hugeBody = 2 << 20

// maxRequest bounds the body of a request.
const maxRequest = 1 << 20

// Fault is what happens to one request.
type Fault struct {
	Kind Kind
	// Status of Refuse and of pages; 0 is 500 and 502.
	Status int
	// RetryAfter is told with the answer, as a date if AsDate is set; 0 is not.
	RetryAfter time.Duration
	AsDate     bool
	// ContentType and Body replace the vendor's own words in Refuse.
	ContentType, Body string
}

// Rates are shares of the requests, but those of Login, that meet a fault by chance.
type Rates struct {
	Lost, LostSlow, Dropped, Errors, Busy, Cut, Half, Pages float64
	// RetryAfter is told with Busy, every other time as a date; 0 is not.
	RetryAfter time.Duration
}

// script are the faults that the next requests about op meet.
type script struct {
	op     Op
	faults []Fault
}

// Script has the next requests about op meet the faults, one each.
func (c *Core) Script(op Op, faults ...Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scripts = append(c.scripts, &script{op: op, faults: slices.Clone(faults)})
}

// Forget drops what is left of every script.
func (c *Core) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scripts = nil
}

// Repeat is n times the fault.
func Repeat(n int, f Fault) []Fault { return slices.Repeat([]Fault{f}, n) }

// Count is how many requests there were about op.
func (c *Core) Count(op Op) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[op]
}

// next is the fault of a request, nil for none.
func (c *Core) next(op Op) *Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[op]++
	if c.over(c.Now()) {
		return &Fault{Kind: Refuse, Status: http.StatusTooManyRequests}
	}
	for i, s := range c.scripts {
		if s.op != op && s.op != Any {
			continue
		}
		f := s.faults[0]
		if s.faults = s.faults[1:]; len(s.faults) == 0 {
			c.scripts = slices.Delete(c.scripts, i, i+1)
		}
		return &f
	}
	if op == Login {
		return nil
	}
	return c.byChance()
}

// byChance draws once for each request, so that what comes is the seed's doing. The
// lock is held.
func (c *Core) byChance() *Fault {
	r, drawn := c.config.Rates, c.random.Float64()
	busy := Fault{Kind: Refuse, Status: http.StatusTooManyRequests, RetryAfter: r.RetryAfter, AsDate: c.random.Uint64()&1 == 1}
	for _, chance := range []struct {
		share float64
		fault Fault
	}{
		{r.Lost, Fault{Kind: Lost}},
		{r.LostSlow, Fault{Kind: LostSlow}},
		{r.Dropped, Fault{Kind: Dropped}},
		{r.Errors, Fault{Kind: Refuse, Status: http.StatusInternalServerError}},
		{r.Busy, busy},
		{r.Cut, Fault{Kind: Cut}},
		{r.Half, Fault{Kind: Half}},
		{r.Pages, Fault{Kind: Page}},
	} {
		if drawn < chance.share {
			return &chance.fault
		}
		drawn -= chance.share
	}
	return nil
}

// over counts a request at now, and reports whether it is too many. The lock is held.
func (c *Core) over(now time.Time) bool {
	if len(c.config.Limits) == 0 {
		return false
	}
	longest := slices.MaxFunc(c.config.Limits, func(a, b Limit) int { return int(a.Within - b.Within) }).Within
	c.recent = slices.DeleteFunc(c.recent, func(t time.Time) bool { return now.Sub(t) >= longest })
	for _, limit := range c.config.Limits {
		within := 0
		for _, t := range c.recent {
			if now.Sub(t) < limit.Within {
				within++
			}
		}
		if within >= limit.Requests {
			return true
		}
	}
	c.recent = append(c.recent, now)
	return false
}

// Dialect is what a Core has to know of the vendor that it plays.
type Dialect struct {
	// Op is what a request is about.
	Op func(r *http.Request) Op
	// Problem is what the vendor says with a status that is no success.
	Problem func(status int) (contentType, body string)
	// Serve answers.
	Serve http.Handler
}

// Handler serves the dialect with the faults of the Core.
func (c *Core) Handler(d Dialect) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op := d.Op(r)
		if c.config.Seen != nil {
			c.config.Seen(op, r)
		}
		// The whole of it: a server sees that the other side is gone only when it
		// has read what came, and a handler must not meet a body half read.
		body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		w.Header().Set("Date", c.Now().UTC().Format(http.TimeFormat))
		f := c.next(op)
		if f == nil {
			d.Serve.ServeHTTP(w, r)
			return
		}
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", c.retryAfter(*f))
		}
		c.fail(w, r, d, *f)
	})
}

func (c *Core) retryAfter(f Fault) string {
	if f.AsDate {
		return c.Now().Add(f.RetryAfter).UTC().Format(http.TimeFormat)
	}
	return strconv.Itoa(int(f.RetryAfter / time.Second))
}

func (c *Core) fail(w http.ResponseWriter, r *http.Request, d Dialect, f Fault) {
	switch f.Kind {
	case Refuse:
		status := f.Status
		if status == 0 {
			status = http.StatusInternalServerError
		}
		kind, body := d.Problem(status)
		if f.Body != "" {
			kind, body = f.ContentType, f.Body
		}
		answer(w, status, kind, body)
		return
	case Page:
		page(w, r, f.Status)
		return
	case Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case Dropped:
		hangUp(w, nil)
	}
	made := httptest.NewRecorder()
	d.Serve.ServeHTTP(made, r)
	switch f.Kind {
	case Lost:
		hangUp(w, nil)
	case LostSlow:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case Cut:
		text := made.Body.String()
		hangUp(w, fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			made.Code, http.StatusText(made.Code), made.Header().Get("Content-Type"), len(text)+1, text[:len(text)/2]))
	case Half:
		text := made.Body.String()
		answer(w, made.Code, made.Header().Get("Content-Type"), text[:len(text)/2])
	case Huge:
		answer(w, made.Code, made.Header().Get("Content-Type"), strings.Repeat(" ", hugeBody)+made.Body.String())
	case PageAfter:
		page(w, r, f.Status)
	default:
		panic(fmt.Sprintf("no such fault: %q", f.Kind))
	}
}

func answer(w http.ResponseWriter, status int, kind, body string) {
	if kind != "" {
		w.Header().Set("Content-Type", kind)
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// page is what a proxy between the two says, which knows neither of them; like some
// of those, it shows the request that it got, credentials and all.
func page(w http.ResponseWriter, r *http.Request, status int) {
	if status == 0 {
		status = http.StatusBadGateway
	}
	var shown strings.Builder
	_ = r.Header.Write(&shown)
	answer(w, status, "text/html", "<html><body><h1>The proxy is sorry</h1><pre>"+shown.String()+"</pre></body></html>")
}

// hangUp writes what it gets to the connection as it is, and ends it: by a reset,
// where the connection is one of TCP.
func hangUp(w http.ResponseWriter, last []byte) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: the stream is reset
	}
	_, _ = conn.Write(last)
	if tcp, ok := conn.(*net.TCPConn); ok && last == nil {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
	panic(http.ErrAbortHandler)
}
