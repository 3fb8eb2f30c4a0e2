package enroll

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync/coordinatortest"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a host that can be enrolled at a coordinator.
type bench struct {
	t     *testing.T
	dir   string
	coord *coordinatortest.Coordinator
	store *store.Store
	keys  *keys.Dir
	cfg   Config
	log   bytes.Buffer
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), coord: coordinatortest.New(t)}
	b.open()
	t.Cleanup(func() { require.NoError(t, b.store.Close()) })
	b.cfg = Config{
		Servers: []string{b.coord.Start()}, Token: b.coord.Token().EnrollmentToken, Store: b.store, Keys: b.keys,
		Host: wire.HostReport{Hostname: "web1"}, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
	}
	return b
}

func (b *bench) open() {
	var err error
	b.keys, err = keys.OpenDir(filepath.Join(b.dir, "keys"))
	require.NoError(b.t, err)
	b.store, err = store.Open(filepath.Join(b.dir, "state", "state.db"), store.Options{})
	require.NoError(b.t, err)
}

// crash is a new process.
func (b *bench) crash() {
	require.NoError(b.t, b.store.Close())
	b.open()
	b.cfg.Store, b.cfg.Keys = b.store, b.keys
}

func (b *bench) identity() *store.Identity {
	identity, err := b.store.Identity()
	require.NoError(b.t, err)
	return identity
}

func (b *bench) keyFiles() int {
	files, err := filepath.Glob(filepath.Join(b.dir, "keys", "*"))
	require.NoError(b.t, err)
	return len(files)
}

func TestEnroll(t *testing.T) {
	b := newBench(t)
	identity, err := Enroll(t.Context(), b.cfg)
	require.NoError(t, err)
	assert.Equal(t, identity, b.identity())
	assert.Equal(t, "agent-1", identity.AgentID)
	assert.Equal(t, b.cfg.Servers, identity.Servers)
	assert.Equal(t, []string{"*.example.com"}, identity.NamePatterns)
	assert.Nil(t, identity.Enrolling)
	key, err := b.keys.Load(identity.KeyID)
	require.NoError(t, err)
	leaf, err := CheckIdentity(identity.ChainPEM, identity.RootsPEM, key.Public(), time.Now())
	require.NoError(t, err)
	half := time.Until(leaf.NotAfter) / 2
	assert.InDelta(t, half, time.Until(identity.RenewAt), float64(half)/4)
	assert.NotContains(t, b.log.String(), strings.Split(b.cfg.Token.Reveal(), ".")[2])

	_, err = Enroll(t.Context(), b.cfg)
	require.ErrorIs(t, err, ErrEnrolled)
	assert.ErrorContains(t, err, "as agent agent-1")
	assert.ErrorContains(t, err, "--replace")
	assert.Equal(t, identity, b.identity())
}

// With several servers the first that decides is enough, all get the same key,
// and a refusal is not tried elsewhere.
func TestEnrollAtOneOfSeveral(t *testing.T) {
	b := newBench(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := "https://" + closed.Addr().String()
	require.NoError(t, closed.Close())
	stranger := coordinatortest.New(t).Start()
	last := b.cfg.Servers[0]

	b.cfg.Servers = []string{nobody, stranger + "/", nobody}
	_, err = Enroll(t.Context(), b.cfg)
	require.ErrorContains(t, err, "check the address", "the first failure is told")
	assert.ErrorContains(t, err, nobody)
	keys := b.keyFiles()

	b.cfg.Servers = []string{nobody, stranger, last, nobody}
	identity, err := Enroll(t.Context(), b.cfg)
	require.NoError(t, err)
	assert.Equal(t, []string{nobody, stranger, last}, identity.Servers)
	assert.Equal(t, keys, b.keyFiles())

	before := b.coord.Requests(wire.EnrollPath)
	b.cfg.Servers, b.cfg.Replace, b.cfg.Token.Secret[0] = []string{last, last + "/", strings.Replace(last, "127.0.0.1", "localhost", 1)}, true, b.cfg.Token.Secret[0]+1
	_, err = Enroll(t.Context(), b.cfg)
	require.Error(t, err)
	assert.Equal(t, before+1, b.coord.Requests(wire.EnrollPath))

	for _, servers := range [][]string{nil, make([]string, wire.MaxServers+1)} {
		b.cfg.Servers = servers
		_, err = Enroll(t.Context(), b.cfg)
		assert.ErrorContains(t, err, "1 to 16")
	}
}

var errCrash = errors.New("the process ended here")

// crashing ends the process before or after the nth write.
type crashing struct {
	Identities
	at, writes int
	after      bool
}

func (c *crashing) UpdateIdentity(fn func(*store.Identity) (*store.Identity, error), events ...wire.Event) error {
	if c.writes++; c.writes != c.at {
		return c.Identities.UpdateIdentity(fn, events...)
	}
	if c.after {
		if err := c.Identities.UpdateIdentity(fn, events...); err != nil {
			return err
		}
	}
	return errCrash
}

// lasting keeps keys that a dying process cannot remove any more.
type lasting struct{ Keys }

func (lasting) Remove(string) error { return errCrash }

// After a crash at each write, and a loss of each answer, the same token gives
// one agent and one use.
func TestRerunContinuesAfterACrashAnywhere(t *testing.T) {
	type point struct {
		write int
		after bool
		fault coordinatortest.Fault
	}
	points := []point{
		{fault: coordinatortest.Drop}, {fault: coordinatortest.Lose}, {fault: coordinatortest.Truncate},
		{fault: coordinatortest.Unavailable}, {fault: coordinatortest.Proxy},
	}
	for write := 1; write <= 3; write++ { // look, key, identity
		points = append(points, point{write: write}, point{write: write, after: true})
	}
	for _, p := range points {
		t.Run(fmt.Sprintf("%+v", p), func(t *testing.T) {
			b := newBench(t)
			fault := p.fault
			b.coord.Fault = func(*http.Request) coordinatortest.Fault {
				once := fault
				fault = coordinatortest.None
				return once
			}
			cfg := b.cfg
			if p.write > 0 {
				cfg.Store = &crashing{Identities: b.store, at: p.write, after: p.after}
				cfg.Keys = lasting{b.keys}
			}
			_, err := Enroll(t.Context(), cfg)
			require.Error(t, err)
			b.crash()
			if p.write != 3 || !p.after {
				first := b.identity()
				require.True(t, first == nil || first.AgentID == "")
				_, err = Enroll(t.Context(), b.cfg)
				require.NoError(t, err)
			}
			assert.Equal(t, "agent-1", b.identity().AgentID)
			assert.Equal(t, 1, b.coord.Agents())
			_, err = b.keys.Load(b.identity().KeyID)
			require.NoError(t, err)
		})
	}
}

func TestReplace(t *testing.T) {
	b := newBench(t)
	first, err := Enroll(t.Context(), b.cfg)
	require.NoError(t, err)
	require.NoError(t, b.store.UpdateIdentity(func(i *store.Identity) (*store.Identity, error) {
		id, _, err := b.keys.Create(pki.DefaultKeyAlgorithm)
		i.Pending = &store.PendingIdentity{KeyID: id}
		return i, err
	}))

	// A refused replacement leaves the present identity in use.
	refused := b.coord.Token()
	refused.Problem = &wire.Problem{Status: 403, Code: wire.CodeTokenExpired, Detail: "expired"}
	b.cfg.Token, b.cfg.Replace = refused.EnrollmentToken, true
	_, err = Enroll(t.Context(), b.cfg)
	require.ErrorContains(t, err, "token_expired")
	assert.Equal(t, first.AgentID, b.identity().AgentID)
	assert.Equal(t, first.KeyID, b.identity().KeyID)
	ids, err := b.store.KeyIDs()
	require.NoError(t, err)
	assert.True(t, ids[b.identity().Enrolling.KeyID], "the sweep must know the key")

	b.cfg.Token = b.coord.Token().EnrollmentToken
	second, err := Enroll(t.Context(), b.cfg)
	require.NoError(t, err)
	assert.Equal(t, "agent-2", second.AgentID)
	assert.Equal(t, 1, b.keyFiles(), "the keys of what was replaced are gone")

	// A retired identity is replaced without being asked.
	require.NoError(t, b.store.UpdateIdentity(func(i *store.Identity) (*store.Identity, error) { i.Retired = true; return i, nil }))
	b.cfg.Token, b.cfg.Replace = b.coord.Token().EnrollmentToken, false
	third, err := Enroll(t.Context(), b.cfg)
	require.NoError(t, err)
	assert.False(t, third.Retired)
}

// Every refusal says what to do, keeps its code, and leaves nothing but the key
// for the next try.
func TestRefusals(t *testing.T) {
	for code, want := range map[wire.Code]string{
		wire.CodeTokenUnknown: "copied whole",
		wire.CodeTokenExpired: "certctl token create",
		wire.CodeTokenUsed:    "it has enrolled as many hosts as it was made for",
		wire.CodeTokenRevoked: "certctl token create",
		wire.CodeNamesRefused: "take the names out",
		wire.CodeAgentRetired: "has been retired",
		wire.CodeConflict:     "enrol again",
		wire.CodeProtocol:     "upgrade the older",
		wire.CodeOverloaded:   "come back in 9s",
		wire.CodeInternal:     "the coordinator's log",
		wire.CodeCSRInvalid:   "see the coordinator's own mend",
		wire.CodeKeyRefused:   "see the coordinator's own mend",
	} {
		t.Run(string(code), func(t *testing.T) {
			b := newBench(t)
			token := b.coord.Token()
			token.Problem = &wire.Problem{Status: 403, Code: code, Detail: "because", Mend: "see the coordinator's own mend"}
			if code == wire.CodeOverloaded {
				token.Problem.RetryAfterSeconds = 9
			}
			b.cfg.Token = token.EnrollmentToken
			_, err := Enroll(t.Context(), b.cfg)
			var refusal *Error
			require.ErrorAs(t, err, &refusal)
			assert.Equal(t, code, refusal.Code)
			assert.ErrorContains(t, err, want)
			assert.ErrorContains(t, err, "because")
			assert.NotContains(t, err.Error(), strings.Split(b.cfg.Token.Reveal(), ".")[2])
			assert.Empty(t, b.identity().AgentID)
			assert.Equal(t, 1, b.keyFiles())
		})
	}
}

// Whoever cannot show the root that the token names learns nothing.
func TestStrangersAreToldNothing(t *testing.T) {
	b := newBench(t)
	stranger := coordinatortest.New(t)
	b.cfg.Servers = []string{stranger.Start()}
	_, err := Enroll(t.Context(), b.cfg)
	require.ErrorIs(t, err, tlsutil.ErrPinMismatch)
	assert.ErrorContains(t, err, "nothing was told to it")
	assert.Zero(t, stranger.Requests(wire.EnrollPath))

	b = newBench(t)
	b.cfg.Servers = []string{strings.Replace(b.cfg.Servers[0], "127.0.0.1", "localhost", 1)}
	_, err = Enroll(t.Context(), b.cfg)
	require.ErrorContains(t, err, "use one of the names")

	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b.cfg.Servers = []string{"https://" + closed.Addr().String()}
	require.NoError(t, closed.Close())
	_, err = Enroll(t.Context(), b.cfg)
	require.ErrorContains(t, err, "the coordinator runs there")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Enroll(ctx, b.cfg)
	require.ErrorIs(t, err, context.Canceled)
}

// An answer that would not hold up is not stored.
func TestBadAnswersAreNotAccepted(t *testing.T) {
	other := coordinatortest.New(t)
	key, err := pki.GenerateKey(pki.DefaultKeyAlgorithm)
	require.NoError(t, err)
	foreign := other.Join(key.Public())
	for want, spoil := range map[string]func(*wire.EnrollResponse){
		"another key":         func(r *wire.EnrollResponse) { r.Chain = foreign.ChainPEM },
		"unknown authority":   func(r *wire.EnrollResponse) { r.Roots = foreign.RootsPEM },
		"roots":               func(r *wire.EnrollResponse) { r.Roots = "" },
		"no PEM block":        func(r *wire.EnrollResponse) { r.Chain = "x" },
		"agent_id":            func(r *wire.EnrollResponse) { r.AgentID = "" },
		"name_patterns":       func(r *wire.EnrollResponse) { r.NamePatterns = []string{"**"} },
		"certificate is a CA": func(r *wire.EnrollResponse) { r.Chain = r.Roots },
	} {
		t.Run(want, func(t *testing.T) {
			b := newBench(t)
			b.coord.Enrolled = spoil
			_, err := Enroll(t.Context(), b.cfg)
			require.Error(t, err)
			if want != "certificate is a CA" { // the key is looked at first
				require.ErrorContains(t, err, want)
			}
			assert.Empty(t, b.identity().AgentID)
		})
	}
	answer := &wire.EnrollResponse{AgentID: "a", Chain: foreign.ChainPEM, Roots: foreign.RootsPEM}
	assert.ErrorContains(t, checkAnswer(answer, wire.EnrollmentToken{}, nil), "not among them")
}

func TestConfigIsChecked(t *testing.T) {
	b := newBench(t)
	for field, spoil := range map[string]func(*Config){
		"Store": func(c *Config) { c.Store = nil }, "Keys": func(c *Config) { c.Keys = nil }, "Log": func(c *Config) { c.Log = nil },
		"token": func(c *Config) { c.Token = wire.EnrollmentToken{} }, "Timeout": func(c *Config) { c.Timeout = -1 },
		"server": func(c *Config) { c.Servers = []string{"http://x"} },
	} {
		cfg := b.cfg
		spoil(&cfg)
		_, err := Enroll(t.Context(), cfg)
		assert.ErrorContains(t, err, field)
		assert.Zero(t, b.keyFiles())
		failed, ok := errors.AsType[*Error](err)
		assert.Equal(t, field == "server", ok && failed.Code == wire.CodeInvalid, "a mistake of whoever asks")
	}
}
