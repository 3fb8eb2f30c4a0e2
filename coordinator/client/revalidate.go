package client

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// Bounds of what a client keeps to ask again for: of one answer, and of all, in octets.
const (
	maxKept    = 8 << 20
	maxKeptAll = 64 << 20
)

// revalidation has reads that are repeated answered from what was answered before, as
// long as the coordinator says that it is still so: it then sends no content (RFC 9110,
// section 13.1.2). Entity tags are the same on all nodes, so that it does not matter
// which one answers.
type revalidation struct {
	next http.RoundTripper
	on   atomic.Bool

	mu   sync.Mutex
	kept map[string]keptAnswer // by what is accepted, path and query
	size int
}

type keptAnswer struct {
	tag     string
	content []byte
}

// Revalidate has the client keep the answers to its reads from now on, and ask whether they
// are still the same when they are repeated, which costs the coordinator little.
func (c *Client) Revalidate() { c.kept.on.Store(true) }

// RoundTrip implements http.RoundTripper.
func (r *revalidation) RoundTrip(request *http.Request) (*http.Response, error) {
	if !r.on.Load() || request.Method != http.MethodGet || request.Header.Get("If-None-Match") != "" {
		return r.next.RoundTrip(request)
	}
	key := request.Header.Get("Accept") + " " + request.URL.RequestURI()
	r.mu.Lock()
	kept, known := r.kept[key]
	r.mu.Unlock()
	if known {
		request = request.Clone(request.Context())
		request.Header.Set("If-None-Match", kept.tag)
	}
	response, err := r.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	switch {
	case known && response.StatusCode == http.StatusNotModified:
		if err := response.Body.Close(); err != nil {
			return nil, err
		}
		response.StatusCode, response.Status = http.StatusOK, "200 OK"
		response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(kept.content)), int64(len(kept.content))
	case response.StatusCode == http.StatusOK && response.Header.Get("ETag") != "":
		response.Body = &keeping{ReadCloser: response.Body, done: func(content []byte) { r.keep(key, keptAnswer{response.Header.Get("ETag"), content}) }}
	}
	return response, nil
}

// CloseIdleConnections is what http.Client looks for.
func (r *revalidation) CloseIdleConnections() {
	(&http.Client{Transport: r.next}).CloseIdleConnections()
}

func (r *revalidation) keep(key string, answer keptAnswer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.size += len(answer.content) - len(r.kept[key].content)
	if r.size > maxKeptAll { // of a list that has grown, or of cursors that have passed
		r.kept, r.size = nil, len(answer.content)
	}
	if r.kept == nil {
		r.kept = make(map[string]keptAnswer)
	}
	r.kept[key] = answer
}

// keeping hands on a body, and what was read of it when it has come to its end.
type keeping struct {
	io.ReadCloser
	read []byte
	over bool // it is too large, or was handed on
	done func(content []byte)
}

// Read implements io.Reader.
func (k *keeping) Read(b []byte) (int, error) {
	n, err := k.ReadCloser.Read(b)
	switch {
	case k.over:
	case len(k.read)+n > maxKept:
		k.over, k.read = true, nil
	default:
		k.read = append(k.read, b[:n]...)
		if err == io.EOF {
			k.over = true
			k.done(k.read)
		}
	}
	return n, err
}
