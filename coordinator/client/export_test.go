package client

import (
	"context"
	"io"
	"net/http"
)

// Do makes a call that no operation is behind, for tests of what all calls have in common.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	return c.do(ctx, &call{method: method, path: path, in: in}, out)
}

// Fetch is Do for a read whose answer is a stream.
func (c *Client) Fetch(ctx context.Context, path string, out io.Writer, most int64) error {
	return fetch(ctx, c, call{method: http.MethodGet, path: path, accept: "text/plain"}, out, most, nil)
}

// Send is Do for a change whose content is a stream.
func (c *Client) Send(ctx context.Context, path string, in io.Reader) error {
	return c.send(ctx, &call{method: http.MethodPut, path: path}, "text/plain", in, nil)
}
