package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/wire"
)

// freshPatience is how long a read waits for this node to have what it asks for.
const freshPatience = 10 * time.Second

// freshness is how new the answer to a read has to be. The zero value is content
// with what this node has.
type freshness struct {
	index      uint64
	consistent bool
}

// parseFreshness reads the parameters that all reads share, and takes them out
// of the query, which is left with those of the operation.
func parseFreshness(query url.Values) (freshness, *Problem) {
	var asked freshness
	for _, name := range []string{resource.MinIndex, resource.Consistent} {
		values := query[name]
		query.Del(name)
		if len(values) == 0 {
			continue
		}
		if len(values) > 1 {
			return asked, invalid(name, fmt.Sprintf("%s stands %d times", name, len(values)), "give it once")
		}
		var err error
		switch {
		case name == resource.MinIndex:
			asked.index, err = strconv.ParseUint(values[0], 10, 64)
		case values[0] == "":
			asked.consistent = true // named, and that is all there is to say
		default:
			asked.consistent, err = strconv.ParseBool(values[0])
		}
		if err != nil {
			mend := "give the number that the header " + resource.Index + " of an earlier answer had"
			if name == resource.Consistent {
				mend = "give true or false"
			}
			return asked, invalid(name, fmt.Sprintf("%q is no value of %s", clip(values[0]), name), mend)
		}
	}
	return asked, nil
}

// await returns when this node has applied what a read asks for.
func (s *server) await(ctx context.Context, asked freshness) *Problem {
	if !asked.consistent && s.Node.State().Index() >= asked.index {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, freshPatience)
	defer cancel()
	if asked.consistent {
		index, err := s.Node.ConsistentIndex(ctx)
		if err != nil {
			s.Log.Debug("a consistent read is refused", "err", err)
			p := unavailable("this node cannot make sure that it knows every change: no leader has confirmed it")
			p.Mend = "wait until the cluster has a leader (\"certctl cluster health\" says what is wrong), or leave " +
				resource.Consistent + " out to read what this node knows"
			return p
		}
		asked.index = max(asked.index, index)
	}
	if err := s.Node.WaitIndex(ctx, asked.index); err != nil {
		has := s.Node.State().Index()
		p := &Problem{*problem.Later(wire.CodeUnavailable, fmt.Sprintf(
			"this node has applied the log up to %d and the request asks for %d: it is %d behind", has, asked.index, asked.index-min(has, asked.index)),
			freshRetry)}
		p.Mend = "send the request again after the pause, or to another node; an index is of one cluster, and means nothing to another"
		return p
	}
	return nil
}

// freshRetry is how long a client is told to wait for a node that is behind.
const freshRetry = 2 * time.Second

// humaContext is huma.Context under another name: it has a method Context, which an
// embedded field of that name would hide.
type humaContext huma.Context

// indexed is a request whose answer tells the index that it was made from.
type indexed struct {
	humaContext
	index   func() uint64
	servers func() string
	query   url.Values // without what parseFreshness took out
	// unchanged is told that the answer is that nothing has changed.
	unchanged func()
}

// Unwrap lets humago.Unwrap through.
func (c *indexed) Unwrap() huma.Context { return c.humaContext }

// SetStatus implements huma.Context. It is the last moment for a header.
func (c *indexed) SetStatus(status int) {
	if status >= http.StatusOK && status < http.StatusMultipleChoices || status == http.StatusNotModified {
		c.SetHeader(resource.Index, strconv.FormatUint(c.index(), 10))
		c.SetHeader(resource.Servers, c.servers())
	}
	if status == http.StatusNotModified && c.unchanged != nil {
		c.unchanged()
	}
	c.humaContext.SetStatus(status)
}

// URL implements huma.Context.
func (c *indexed) URL() url.URL {
	u := c.humaContext.URL()
	u.RawQuery = c.query.Encode()
	return u
}

// fresh lets a request wait until this node has what it asks for, and gives its
// answer the header. The caller has judged its token, and judges it again if the
// state has moved on meanwhile.
func (s *server) fresh(ctx huma.Context) (*indexed, *Problem) {
	u := ctx.URL()
	answer := &indexed{humaContext: ctx, servers: s.nodeList, query: u.Query()}
	if ctx.Operation().Method != http.MethodGet {
		// What was changed is applied here when the answer is written.
		answer.index = func() uint64 { return s.Node.State().Index() }
		return answer, nil
	}
	asked, problem := parseFreshness(answer.query)
	if problem == nil {
		problem = s.await(ctx.Context(), asked)
	}
	if problem != nil {
		return nil, problem
	}
	// The answer is made from a view that is at least as new.
	index := s.Node.State().Index()
	answer.index = func() uint64 { return index }
	return answer, nil
}

// describeIndex adds to every operation what fresh does for it.
func describeIndex(document *huma.OpenAPI) {
	first := 0.0
	for _, path := range document.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Post, path.Put, path.Delete} {
			if op == nil {
				continue
			}
			for status, response := range op.Responses {
				if status[0] != '2' {
					continue
				}
				if response.Headers == nil {
					response.Headers = map[string]*huma.Param{}
				}
				response.Headers[resource.Index] = &huma.Param{
					Description: "Index of the cluster's log: the answer shows every change up to there. With min_index another node's answer does too.",
					Schema:      &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &first},
				}
				response.Headers[resource.TokenExpires] = &huma.Param{
					Description: "When the request's token ends, in RFC 3339, if that is soon: in a week, or in the last quarter of a shorter life. With \"" + resource.TokenExpiryFixed + "\" after it a rotation does not put that off.",
					Schema:      &huma.Schema{Type: huma.TypeString},
				}
				response.Headers[resource.Servers] = &huma.Param{
					Description: "URLs of the cluster's nodes, parted by spaces, that of the node that answers first. Each of them answers what this one does.",
					Schema:      &huma.Schema{Type: huma.TypeString},
				}
			}
			if op != path.Get {
				continue
			}
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: resource.MinIndex, In: "query",
				Description: "Answer when this node has applied the log up to this index, which is the " + resource.Index +
					" of an earlier answer; after ten seconds the answer is 503 and says how far it is.",
				Schema: &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &first},
			}, &huma.Param{
				Name: resource.Consistent, In: "query",
				Description: "Answer from a state that has every change that was acknowledged before this request, by whichever node. It needs a leader; without one the answer is 503. Without a value it is true.",
				Schema:      &huma.Schema{Type: huma.TypeBoolean, Default: false}, AllowEmptyValue: true,
			})
		}
	}
}
