package join_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/cluster/clustertest"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/join"
	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// centre is a cluster of one that lets nodes in. What it would do to Raft's
// membership it notes.
type centre struct {
	*clustertest.Node
	server    *httptest.Server
	key       ca.SealKey
	give      bool
	members   []cluster.Member
	added     func() // called when a member was added
	conflicts int    // answers of this kind before a change of the membership works
	lost      bool   // the next answer does not arrive
	refuse    error  // of AddMember
	following bool
}

func newCentre(t *testing.T) *centre {
	t.Helper()
	c := &centre{Node: clustertest.Start(t), key: ca.NewSealKey(), give: true}
	c.members = []cluster.Member{{ID: c.ID(), Address: "c1.example.com:8444"}}
	c.announce(t)
	require.NoError(t, c.Do(fleet.InitClusterCA{Authority: fleet.ClusterAuthority{Certificate: []byte("root"), SealedKey: []byte("sealed")}}).Err())
	handler, err := join.NewHandler(join.HandlerConfig{
		Node: c, Log: quiet, SealKey: func() (ca.SealKey, bool, error) { return c.key, c.give, nil },
	})
	require.NoError(t, err)
	c.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != join.Path {
			http.NotFound(w, r)
			return
		}
		if c.lost {
			c.lost = false
			handler.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(c.server.Close)
	return c
}

// announce has the cluster know the node that answers.
func (c *centre) announce(t *testing.T) {
	t.Helper()
	require.NoError(t, c.Do(fleet.AnnounceNode{Node: fleet.ClusterNode{
		ID: c.ID(), Address: "c1.example.com:8444", Level: fleet.Level, KeyFingerprint: "key of one",
	}}).Err())
}

func (c *centre) IsLeader() bool { return !c.following && c.Node.IsLeader() }

func (c *centre) Members() ([]cluster.Member, uint64) { return c.members, uint64(len(c.members)) }

func (c *centre) AddMember(_ context.Context, id, address string, prevIndex uint64) error {
	if c.conflicts > 0 {
		c.conflicts--
		return &cluster.ConflictError{Index: 7}
	}
	if c.refuse != nil {
		return c.refuse
	}
	if prevIndex != uint64(len(c.members)) {
		return errors.New("the membership is changed without a look at it")
	}
	c.members = append(c.members, cluster.Member{ID: id, Address: address})
	if c.added != nil {
		c.added()
	}
	return nil
}

func (c *centre) CheckAddress(_ context.Context, id, address string) error {
	for _, m := range c.members {
		if m.Address == address && m.ID != id {
			return &cluster.AddressTakenError{Address: address, Member: m.ID}
		}
	}
	return nil
}

// token makes one and has the state know it.
func (c *centre) token(t *testing.T, urls ...string) jointoken.Token {
	t.Helper()
	if len(urls) == 0 {
		urls = []string{c.server.URL}
	}
	token, err := jointoken.New(c.server.Certificate(), urls...)
	require.NoError(t, err)
	require.NoError(t, c.Do(fleet.CreateJoinToken{ID: token.ID, SecretHash: token.SecretHash(), ExpiresAt: time.Now().Add(time.Hour)}).Err())
	return token
}

func newNode(t *testing.T, id string) join.Node {
	t.Helper()
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	return join.Node{ID: id, Address: id + ".example.com:8444", URL: "https://" + id + ".example.com:8443", Version: "test", Level: fleet.Level, PublicKey: public}
}

func ask(t *testing.T, token jointoken.Token, node join.Node) (*join.Admission, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return join.Ask(ctx, token, node, quiet)
}

func TestANodeGetsWhatItNeeds(t *testing.T) {
	c := newCentre(t)
	c.conflicts = 2
	token, node := c.token(t), newNode(t, "two")
	admission, err := ask(t, token, node)
	require.NoError(t, err)
	stored, ok := c.State().View().ClusterCA()
	require.True(t, ok)
	assert.Equal(t, stored.Authorities, admission.ClusterCA.Authorities)
	require.NotNil(t, admission.SealKey)
	assert.Equal(t, c.key, *admission.SealKey)
	assert.Equal(t, []join.Member{{ID: c.ID(), Address: "c1.example.com:8444", Key: "key of one"}}, admission.Members)
	assert.EqualValues(t, len(c.members), admission.Configuration, "one that has the new node in it")
	assert.Contains(t, c.members, cluster.Member{ID: "two", Address: "two.example.com:8444"})

	record, ok := c.State().View().ClusterNode("two")
	require.True(t, ok)
	assert.Equal(t, node.URL, record.URL)
	assert.Equal(t, node.Level, record.Level)

	// The same node may ask again, and is no second member.
	again, err := ask(t, token, node)
	require.NoError(t, err)
	assert.Equal(t, admission, again)
	assert.Len(t, c.members, 2)

	// Nobody else may.
	for _, other := range []join.Node{newNode(t, "three"), newNode(t, "two")} {
		_, err = ask(t, token, other)
		require.ErrorIs(t, err, join.ErrRefused)
		p, ok := errors.AsType[*wire.Problem](err)
		require.True(t, ok)
		assert.Equal(t, wire.CodeTokenUsed, p.Code)
	}
	assert.Len(t, c.members, 2)
}

func TestALostAnswerCostsNothing(t *testing.T) {
	c := newCentre(t)
	c.lost = true
	token, node := c.token(t), newNode(t, "two")
	_, err := ask(t, token, node) // asks twice
	require.NoError(t, err)
	assert.Len(t, c.members, 2)
}

// Nodes know each other by the keys in their records: so nobody joins before the
// node that leads has one, and nobody is left without one.
func TestAMemberHasARecord(t *testing.T) {
	c := newCentre(t)
	require.NoError(t, c.Do(fleet.ForgetNode{ID: c.ID()}).Err())
	token, node := c.token(t), newNode(t, "two")
	ctx, cancel := context.WithCancel(t.Context())
	answers := make(chan error, 1)
	go func() {
		_, err := join.Ask(ctx, token, node, slog.New(slog.NewTextHandler(writer(func(line string) {
			if strings.Contains(line, "has not told the cluster about itself") {
				cancel()
			}
		}), nil)))
		answers <- err
	}()
	require.ErrorIs(t, <-answers, context.Canceled)
	assert.Len(t, c.members, 1)
	stored, _ := c.State().View().JoinToken(token.ID)
	assert.Zero(t, stored.UsedAt)

	// Who removed an earlier member of that id may clean up after it just now.
	c.announce(t)
	c.added = func() { assert.NoError(t, c.Do(fleet.ForgetNode{ID: "two"}).Err()) }
	_, err := ask(t, token, node)
	require.NoError(t, err)
	record, ok := c.State().View().ClusterNode("two")
	require.True(t, ok)
	assert.NotEmpty(t, record.KeyFingerprint)
}

type writer func(line string)

func (w writer) Write(line []byte) (int, error) { w(string(line)); return len(line), nil }

// A seal key that operators keep in the configuration is not handed out.
func TestASealKeyOfTheConfigurationStaysThere(t *testing.T) {
	c := newCentre(t)
	c.give = false
	token, node := c.token(t), newNode(t, "two")
	for _, configured := range []string{"", ca.NewSealKey().String()} {
		node.SealKeyID = configured
		refused(t, c, token, node, wire.CodeConflict, "ca.seal_key")
	}
	node.SealKeyID = c.key.String()
	admission, err := ask(t, token, node)
	require.NoError(t, err)
	assert.Nil(t, admission.SealKey)
	assert.Equal(t, c.key.String(), admission.SealKeyID)
}

// refused requires that a node is not let in, and that its token is as good as
// before.
func refused(t *testing.T, c *centre, token jointoken.Token, node join.Node, code wire.Code, field string) {
	t.Helper()
	members := len(c.members)
	_, err := ask(t, token, node)
	require.ErrorIs(t, err, join.ErrRefused)
	p, ok := errors.AsType[*wire.Problem](err)
	require.True(t, ok)
	assert.Equal(t, code, p.Code)
	assert.Equal(t, field, p.Field)
	assert.Len(t, c.members, members)
	stored, ok := c.State().View().JoinToken(token.ID)
	require.True(t, ok)
	assert.Zero(t, stored.UsedAt, "the token is not spent")
	_, ok = c.State().View().ClusterNode(node.ID)
	assert.False(t, ok)
}

// What a node has to change first costs it no token.
func TestARefusedNodeKeepsItsToken(t *testing.T) {
	c := newCentre(t)
	token, node := c.token(t), newNode(t, "two")
	address := node.Address
	node.Address = c.members[0].Address
	refused(t, c, token, node, wire.CodeConflict, "node.address")
	node.Address, node.SealKeyID = address, ca.NewSealKey().String()
	refused(t, c, token, node, wire.CodeConflict, "ca.seal_key")

	// Who has no token learns nothing about the members and the key.
	stranger, err := jointoken.New(c.server.Certificate(), c.server.URL)
	require.NoError(t, err)
	_, err = ask(t, stranger, node)
	p, ok := errors.AsType[*wire.Problem](err)
	require.True(t, ok)
	assert.Equal(t, wire.CodeTokenUnknown, p.Code)

	node.SealKeyID = c.key.String()
	_, err = ask(t, token, node)
	require.NoError(t, err)
}

func TestRefusals(t *testing.T) {
	c := newCentre(t)
	token := c.token(t)
	stranger, err := jointoken.New(c.server.Certificate(), c.server.URL)
	require.NoError(t, err)
	for name, refused := range map[string]struct {
		token  jointoken.Token
		change func(*join.Node)
		code   wire.Code
		field  string
	}{
		"a token of nobody":     {stranger, func(*join.Node) {}, wire.CodeTokenUnknown, "token"},
		"no id":                 {token, func(n *join.Node) { n.ID = "" }, wire.CodeInvalid, "node.id"},
		"no address":            {token, func(n *join.Node) { n.Address = "" }, wire.CodeInvalid, "node.address"},
		"every address":         {token, func(n *join.Node) { n.Address = "[::]:8444" }, wire.CodeInvalid, "node.address"},
		"no port":               {token, func(n *join.Node) { n.Address = "c2:0" }, wire.CodeInvalid, "node.address"},
		"no key":                {token, func(n *join.Node) { n.PublicKey = nil }, wire.CodeInvalid, "node.public_key"},
		"an older version":      {token, func(n *join.Node) { n.Level = fleet.Level - 1 }, wire.CodeInvalid, "node.version"},
		"a version of a poem":   {token, func(n *join.Node) { n.Version = strings.Repeat("x", 500) }, wire.CodeInvalid, "node.version"},
		"a URL that is a novel": {token, func(n *join.Node) { n.URL = strings.Repeat("x", 5000) }, wire.CodeInvalid, "node.url"},
	} {
		node := newNode(t, "two")
		refused.change(&node)
		_, err := ask(t, refused.token, node)
		require.ErrorIs(t, err, join.ErrRefused, name)
		p, ok := errors.AsType[*wire.Problem](err)
		require.True(t, ok, name)
		assert.Equal(t, refused.code, p.Code, name)
		assert.Equal(t, refused.field, p.Field, name)
		secret := strings.Split(refused.token.Reveal(), ".")[2]
		assert.NotContains(t, err.Error(), secret, name)
	}
	assert.Len(t, c.members, 1)
	_, err = ask(t, token, newNode(t, "two"))
	require.NoError(t, err, "none of that has spent the token")
}

// Another server than the one that the token means gets to see nothing of it.
func TestAnotherRoot(t *testing.T) {
	c := newCentre(t)
	asked := false
	impostor := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer impostor.Close()
	token, err := jointoken.New(&x509.Certificate{Raw: []byte("another root")}, impostor.URL)
	require.NoError(t, err)
	_, err = ask(t, token, newNode(t, "two"))
	require.ErrorIs(t, err, tlsutil.ErrPinMismatch)
	assert.False(t, asked)
	assert.Len(t, c.members, 1)
}

// What waiting can change is waited for, at the next node that the token names.
func TestItGoesOnToTheNextNode(t *testing.T) {
	c := newCentre(t)
	gone := httptest.NewTLSServer(http.NotFoundHandler())
	gone.Close()
	_, err := ask(t, c.token(t, gone.URL, c.server.URL), newNode(t, "two"))
	require.NoError(t, err)

	c.following = true
	token := c.token(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = join.Ask(ctx, token, newNode(t, "three"), quiet)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	p, ok := errors.AsType[*wire.Problem](err)
	if ok { // unless the time was up before the answer came
		assert.Equal(t, wire.CodeUnavailable, p.Code)
	}
	record, ok := c.State().View().JoinToken(token.ID)
	require.True(t, ok)
	assert.True(t, record.UsedAt.IsZero())
}

// Answers that are none of a coordinator, or not whole, are no admission.
func TestAnswers(t *testing.T) {
	c := newCentre(t)
	token, node := c.token(t), newNode(t, "two")
	body, err := json.Marshal(map[string]any{"protocol": 1, "token": token.Reveal(), "node": node})
	require.NoError(t, err)
	response, err := c.server.Client().Post(c.server.URL+join.Path, "application/json", bytes.NewReader(body))
	require.NoError(t, err)
	whole, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	c.server.Client().CloseIdleConnections()
	_, err = join.ReadAnswer(whole)
	require.NoError(t, err)
	for i := range whole {
		if _, err := join.ReadAnswer(whole[:i]); err == nil {
			t.Fatalf("an answer cut at %d of %d is taken for whole", i, len(whole))
		}
	}
	for _, left := range []string{"authorities", "members", "seal_key_id", "protocol"} {
		var parts map[string]any
		require.NoError(t, json.Unmarshal(whole, &parts))
		delete(parts, left)
		short, err := json.Marshal(parts)
		require.NoError(t, err)
		_, err = join.ReadAnswer(short)
		assert.Error(t, err, left)
	}
	_, err = join.ReadAnswer(bytes.Replace(whole, []byte(c.key.Reveal()), []byte(ca.NewSealKey().Reveal()), 1))
	assert.ErrorContains(t, err, "not the one that it names")
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte(`{"protocol":1,"authorities":[{"certificate":"AA=="}],"members":[{"id":"a","address":"b:1"}],"seal_key_id":"x"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		admission, err := join.ReadAnswer(text)
		if err == nil && (len(admission.Members) == 0 || len(admission.ClusterCA.Authorities) == 0 || admission.SealKeyID == "") {
			t.Fatalf("%q admits to nothing", text)
		}
	})
}
