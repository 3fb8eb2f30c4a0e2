//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/snapshotfile"
	"github.com/certctl/certctl/internal/clusterfaults/linear"
	"github.com/certctl/certctl/shared/wire"
)

// operators change assignments and make tokens at any node, and write down what
// they were answered.
type operators struct {
	cluster *cluster
	history *linear.History
	object  atomic.Int64 // which assignment they are about
	turns   sync.RWMutex // held while one does something

	mu     sync.Mutex
	tokens []string // acknowledged
}

func newOperators(c *cluster) *operators { return &operators{cluster: c, history: linear.NewHistory()} }

func (o *operators) work(ctx context.Context, random *rand.Rand) {
	client := o.history.Client()
	for ctx.Err() == nil {
		o.turn(ctx, client, random)
		pause(ctx, time.Duration(20+random.IntN(60))*time.Millisecond)
	}
}

func (o *operators) turn(ctx context.Context, client *linear.Client, random *rand.Rand) {
	o.turns.RLock()
	defer o.turns.RUnlock()
	node := o.cluster.nodes[random.IntN(len(o.cluster.nodes))]
	if random.IntN(8) > 0 {
		o.assign(ctx, client, random, node, fmt.Sprintf("assignment-%d", o.object.Load()))
		return
	}
	var made resource.CreatedEnrollmentToken
	if do(ctx, node, http.MethodPost, "/api/v1/enrollment-tokens", resource.CreateEnrollmentToken{Description: "acknowledged", TTLSeconds: 86400}, &made) == nil {
		o.acknowledged(made.ID)
	}
}

// acknowledged takes note of a token that must be there from now on.
func (o *operators) acknowledged(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tokens = append(o.tokens, id)
}

// assign reads an assignment, or changes or deletes what it has seen, or puts one
// in its place whatever it was.
func (o *operators) assign(ctx context.Context, client *linear.Client, random *rand.Rand, node *coordinator, name string) {
	if random.IntN(4) == 0 {
		put(ctx, client, random, node, name, nil)
		return
	}
	seen, ok := read(ctx, client, node, name)
	if !ok || random.IntN(3) == 0 {
		return
	}
	if random.IntN(5) == 0 && seen.Exists {
		in := linear.Input{Kind: linear.DeleteAssignment, Object: name, IfRevision: true, Previous: seen.Number}
		pending := client.Begin(in)
		path := fmt.Sprintf("/api/v1/assignments/%s?revision=%d", name, seen.Number)
		settle(pending, do(ctx, node, http.MethodDelete, path, nil, nil), func() linear.Output { return linear.Output{} })
		return
	}
	put(ctx, client, random, node, name, &seen.Number)
}

// put stores an assignment that is new, if the revision of the one before is as
// given.
func put(ctx context.Context, client *linear.Client, random *rand.Rand, node *coordinator, name string, revision *uint64) {
	in := linear.Input{Kind: linear.PutAssignment, Object: name, Value: fmt.Sprintf("v=%d", random.Uint64())}
	if revision != nil {
		in.IfRevision, in.Previous = true, *revision
	}
	body := resource.PutAssignment{Selector: in.Value, Certificate: json.RawMessage(`{"names":["${hostname}.example.com"]}`), Revision: revision}
	var result resource.AssignmentResult
	pending := client.Begin(in)
	settle(pending, do(ctx, node, http.MethodPut, "/api/v1/assignments/"+name, body, &result), func() linear.Output {
		return linear.Output{Number: result.Assignment.Revision}
	})
}

func read(ctx context.Context, client *linear.Client, node *coordinator, name string) (linear.Output, bool) {
	var found resource.AssignmentDetail
	pending := client.Begin(linear.Input{Kind: linear.ReadAssignment, Object: name})
	err := do(ctx, node, http.MethodGet, "/api/v1/assignments/"+name+"?consistent=true", nil, &found)
	problem, _ := errors.AsType[*wire.Problem](err)
	switch {
	case err == nil:
		out := linear.Output{Exists: true, Value: found.Selector, Number: found.Revision}
		pending.Done(out)
		return out, true
	case problem != nil && problem.Code == wire.CodeNotFound:
		pending.Done(linear.Output{})
		return linear.Output{}, true
	}
	pending.Refused() // a read changes nothing
	return linear.Output{}, false
}

// settle ends an operation by what its request came to.
func settle(pending *linear.Pending, err error, success func() linear.Output) {
	problem, _ := errors.AsType[*wire.Problem](err)
	dial, _ := errors.AsType[*net.OpError](err)
	switch {
	case err == nil:
		pending.Done(success())
	case problem != nil && (problem.Code == wire.CodeConflict || problem.Code == wire.CodeNotFound):
		pending.Done(linear.Output{Code: problem.Code})
	case dial != nil && dial.Op == "dial":
		pending.Refused()
	default:
		pending.Unknown()
	}
}

// do makes one request of an operator, who does not wait for ever.
func do(ctx context.Context, node *coordinator, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	return node.tryFor(ctx, method, path, body, into)
}

// lostTokens counts the acknowledged tokens, and those that a node does not have.
func (o *operators) lostTokens(c *cluster) (lost, acknowledged int) {
	c.t.Helper()
	for _, node := range c.nodes {
		tokens, err := all[resource.EnrollmentToken](node, "/api/v1/enrollment-tokens", url.Values{"consistent": {"true"}})
		require.NoError(c.t, err)
		stored := map[string]bool{}
		for _, token := range tokens {
			stored[token.ID] = true
		}
		for _, id := range o.tokens {
			if !stored[id] {
				lost++
				c.t.Errorf("%s does not have the acknowledged token %s", node.name, id)
			}
		}
	}
	return lost, len(o.tokens)
}

// differing counts the nodes whose whole state differs from the first one's, when
// all are at the same log entry.
func (c *cluster) differing() (count int) {
	c.t.Helper()
	await(c.t, 2*time.Minute, "all nodes are at the same log entry", func() error {
		count = 0
		index, first, err := c.nodes[0].state()
		if err != nil {
			return err
		}
		for _, node := range c.nodes[1:] {
			at, state, err := node.state()
			switch {
			case err != nil:
				return err
			case at != index:
				return fmt.Errorf("%s is at %d, %s at %d", node.name, at, c.nodes[0].name, index)
			case !bytes.Equal(state, first):
				count++
			}
		}
		return nil
	})
	return count
}

// state is everything that a node has, and the log entry that it is at.
func (c *coordinator) state() (index uint64, content []byte, err error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, c.url()+"/api/v1/cluster/snapshot?stale=true", nil)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	response, err := c.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, nil, errors.New(response.Status)
	}
	file, err := snapshotfile.Open(response.Body)
	if err != nil {
		return 0, nil, err
	}
	content, err = io.ReadAll(file)
	return file.Header.Index, content, err
}

// readAll has each node say what became of the newest assignments, when all is
// over, as part of the history.
func (o *operators) readAll(t testing.TB, c *cluster) {
	t.Helper()
	const most = 100
	newest := o.object.Load()
	for i := max(0, newest-most); i <= newest; i++ {
		name := fmt.Sprintf("assignment-%d", i)
		for _, node := range c.nodes {
			_, ok := read(context.Background(), o.history.Client(), node, url.PathEscape(name))
			require.True(t, ok, "%s does not answer", node.name)
		}
	}
}
