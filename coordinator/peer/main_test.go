package peer

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests.
const patience = 60 * time.Second

// A town is a cluster for tests: its CA, who is a member, and the nodes.
type town struct {
	t      testing.TB
	seal   ca.SealKey
	stored *fleet.ClusterCA

	mu      sync.Mutex
	members map[string]string // address by id
	keys    map[string]string // fingerprints by id
}

func newTown(t testing.TB) *town {
	t.Helper()
	w := &town{t: t, seal: ca.NewSealKey(), members: map[string]string{}, keys: map[string]string{}}
	first, err := clusterca.Create(w.seal, time.Now())
	require.NoError(t, err)
	w.stored = &fleet.ClusterCA{Authorities: []fleet.ClusterAuthority{first}, ModifyIndex: 1}
	return w
}

// A resident is one node of a town.
type resident struct {
	*Network
	town     *town
	identity *Identity
	address  string

	mu      sync.Mutex
	view    map[string]string // what it knows of the members; nil: all there is
	refresh func(context.Context) error
	unknown map[string]bool // ids of those whose keys it cannot know
	stop    func()
	once    sync.Once
	layer   raft.StreamLayer
}

// streams is the node's stream layer, always the same.
func (r *resident) streams() raft.StreamLayer {
	r.once.Do(func() { r.layer = r.StreamLayer() })
	return r.layer
}

func (r *resident) look(id string) (string, bool) {
	r.mu.Lock()
	view := r.view
	r.mu.Unlock()
	if view == nil {
		r.town.mu.Lock()
		defer r.town.mu.Unlock()
		view = r.town.members
	}
	address, ok := view[id]
	return address, ok
}

func (r *resident) Member(id string) bool { _, ok := r.look(id); return ok }

func (r *resident) At(address string) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.town.mu.Lock()
	defer r.town.mu.Unlock()
	for id, at := range r.town.members {
		if at == address {
			if r.view == nil || r.view[id] != "" {
				return id, true
			}
		}
	}
	return "", false
}

func (r *resident) Key(id string) (fingerprint string, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.town.mu.Lock()
	defer r.town.mu.Unlock()
	if r.unknown[id] {
		return "", false
	}
	return r.town.keys[id], true
}

// fingerprint is that of the node's key.
func (r *resident) fingerprint() string {
	var record fleet.ClusterNode
	require.NoError(r.town.t, r.identity.Describe(&record))
	return record.KeyFingerprint
}

func (r *resident) Refresh(ctx context.Context) error {
	if r.refresh == nil {
		return nil
	}
	return r.refresh(ctx)
}

func (w *town) config(id string) Config {
	return Config{Dir: w.t.TempDir(), NodeID: id, SealKey: w.seal, Log: slog.New(slog.DiscardHandler)}
}

// settle makes a node, a member or not, that does not run yet.
func (w *town) settle(id string, member bool, prepare ...func(*NetworkConfig)) *resident {
	w.t.Helper()
	identity, err := Create(w.config(id), w.stored)
	require.NoError(w.t, err)
	return w.settleAs(identity, member, prepare...)
}

func (w *town) settleAs(identity *Identity, member bool, prepare ...func(*NetworkConfig)) *resident {
	w.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	config := NetworkConfig{
		Listener: listener, Advertise: listener.Addr().String(), Identity: identity, Log: identity.config.Log,
		RefreshGap: time.Millisecond, HandshakeTimeout: patience,
	}
	for _, fn := range prepare {
		fn(&config)
	}
	network, err := New(config)
	require.NoError(w.t, err)
	r := &resident{Network: network, town: w, identity: identity, address: listener.Addr().String()}
	network.SetMembers(r)
	network.HandleCalls(func(_ context.Context, from, method string, request []byte) ([]byte, error) {
		return []byte(from + " " + method + " " + string(request)), nil
	})
	w.t.Cleanup(network.Close)
	if member {
		w.join(r)
	}
	return r
}

func (w *town) join(r *resident) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members[r.identity.ID()], w.keys[r.identity.ID()] = r.address, r.fingerprint()
}

func (w *town) leave(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.members, id)
}

// start runs a node until the test ends, or until it is stopped.
func (r *resident) start() *resident {
	t := r.town.t
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-ended:
				require.NoError(t, err)
			case <-time.After(patience):
				require.Fail(t, "the network does not stop")
			}
		})
	}
	t.Cleanup(r.stop)
	return r
}

// member is a node that runs and is a member.
func (w *town) member(id string, prepare ...func(*NetworkConfig)) *resident {
	return w.settle(id, true, prepare...).start()
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// ask calls a node, and returns what it answered.
func (r *resident) ask(to *resident) (string, error) {
	answer, err := r.Call(within(r.town.t), to.identity.ID(), to.address, "echo", []byte("hello"))
	return string(answer), err
}
