package store

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func eventOf(kind wire.EventKind, certificate string) wire.Event {
	return wire.Event{Kind: kind, Certificate: certificate}
}

func TestEventsKeepTheirNumbers(t *testing.T) {
	path := testPath(t)
	s := openAt(t, path, Options{})
	at := epoch.Add(-time.Hour)
	require.NoError(t, s.Append(wire.Event{Kind: wire.EventStarted, Sequence: 99, Count: 7}))
	require.NoError(t, s.Append(wire.Event{Kind: wire.EventIssued, Certificate: "web", At: at, Detail: strings.Repeat("ü", 2000)}))
	events, err := s.Events(0)
	require.NoError(t, err)
	require.Len(t, events, 2)
	assert.Equal(t, wire.Event{Sequence: 1, At: epoch, Kind: wire.EventStarted}, events[0])
	assert.Equal(t, uint64(2), events[1].Sequence)
	assert.True(t, at.Equal(events[1].At))
	assert.LessOrEqual(t, len(events[1].Detail), wire.MaxTextLen)

	require.NoError(t, s.AckEvents(2))
	events, err = s.Events(0)
	require.NoError(t, err)
	require.Empty(t, events)
	require.NoError(t, s.Close())

	s = openAt(t, path, Options{})
	defer s.Close()
	require.NoError(t, s.Append(eventOf("x", "")))
	require.NoError(t, s.AckEvents(70), "the coordinator knows more than this copy of the file")
	require.NoError(t, s.Append(eventOf("x", "")))
	events, err = s.Events(0)
	require.NoError(t, err)
	require.Len(t, events, 1)
	assert.Equal(t, uint64(71), events[0].Sequence, "a number is never used twice")
	require.Error(t, s.AckEvents(1<<63))
	requireWhole(t, s)
}

func TestFullOutbox(t *testing.T) {
	var drops []Dropped
	s := openTest(t, Options{OutboxLimit: 4, OnDrop: func(d Dropped) { drops = append(drops, d) }})
	add := func(kind wire.EventKind, certificate string) {
		require.NoError(t, s.Append(eventOf(kind, certificate)))
	}
	show := func() (list []string) {
		events, err := s.Events(0)
		require.NoError(t, err)
		for _, e := range events {
			list = append(list, fmt.Sprintf("%d %s %s %d", e.Sequence, e.Kind, e.Certificate, e.Count))
		}
		return list
	}
	add(wire.EventIssued, "a")
	add(wire.EventFailed, "a")
	add(wire.EventFailed, "b")
	add(wire.EventFailed, "b")
	add(wire.EventFailed, "b")
	add(wire.EventFailed, "b")
	assert.Equal(t, []Dropped{{wire.EventFailed, "b", true}, {wire.EventFailed, "b", true}}, drops)
	assert.Equal(t, []string{"1 certificate.issued a 0", "2 certificate.failed a 0", "3 certificate.failed b 0", "6 certificate.failed b 3"}, show())

	// All that is there may now be with the coordinator: merged, it would be counted twice.
	drops = nil
	add(wire.EventFailed, "b")
	assert.Equal(t, []Dropped{{wire.EventFailed, "a", false}}, drops)
	add(wire.EventStarted, "")
	assert.Equal(t, Dropped{wire.EventFailed, "b", false}, drops[1], "the most frequent kind makes room for others")
	assert.Equal(t, []string{"1 certificate.issued a 0", "6 certificate.failed b 3", "7 certificate.failed b 0", "8 agent.started  0"}, show())
	dropped, err := s.EventsDropped()
	require.NoError(t, err)
	assert.Equal(t, uint64(4), dropped)
	requireWhole(t, s)
}

func TestOutboxWithALowerLimit(t *testing.T) {
	path := testPath(t)
	s := openAt(t, path, Options{})
	for i := range 20 {
		require.NoError(t, s.Append(eventOf("x", fmt.Sprint(i))))
	}
	require.NoError(t, s.Close())
	s = openAt(t, path, Options{OutboxLimit: 5})
	defer s.Close()
	require.NoError(t, s.Append(eventOf("y", "")))
	events, err := s.Events(0)
	require.NoError(t, err)
	require.Len(t, events, 5)
	dropped, err := s.EventsDropped()
	require.NoError(t, err)
	require.Equal(t, uint64(16), dropped)
	requireWhole(t, s)
}

func TestCutText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text") + string(rapid.SliceOf(rapid.Byte()).Draw(t, "octets"))
		limit := rapid.IntRange(3, 40).Draw(t, "limit")
		cut := cutText(text, limit)
		require.LessOrEqual(t, len(cut), limit)
		require.True(t, utf8.ValidString(cut))
		if len(text) <= limit && utf8.ValidString(text) {
			require.Equal(t, text, cut)
		}
	})
}

func TestSummary(t *testing.T) {
	c := &Certificate{
		Name: "web", Names: pki.MustParseNames("web.example.com"), Issuer: "le", IssuerKind: "acme", Phase: PhaseIdle,
		NextAction: epoch, OrderState: []byte(`{"secret":1}`),
	}
	assert.Equal(t, wire.StatePending, c.Summary().State)
	c.Phase = PhaseKeyWritten
	assert.Equal(t, wire.StateRenewing, c.Summary().State)
	c.Attempt, c.LastError = 2, strings.Repeat("e", 5000)
	s := c.Summary()
	assert.Equal(t, wire.StateFailed, s.State)
	assert.Len(t, s.LastError, wire.MaxTextLen)
	assert.Equal(t, epoch, s.NextAttempt)
	c.Attempt, c.Phase = 0, PhaseIdle
	c.RenewAt = epoch.AddDate(0, 0, 60)
	c.Current = &Generation{Serial: "01", Fingerprint: "ff", IssuerDN: "CN=x", KeyAlgorithm: pki.ECDSAP256, NotBefore: epoch, NotAfter: epoch.AddDate(0, 0, 90)}
	c.Deployments = map[string]Deployment{"b": {Outcome: wire.DeploymentFailed, Detail: "no"}, "a": {State: []byte(`{"x":1}`)}}
	s = c.Summary()
	assert.Equal(t, wire.Summary{
		Names: c.Names, State: wire.StateValid, Issuer: "le", IssuerKind: "acme", Serial: "01", Fingerprint: "ff", IssuerDN: "CN=x",
		KeyAlgorithm: "ecdsa-p256", NotBefore: epoch, NotAfter: epoch.AddDate(0, 0, 90), RenewAt: c.RenewAt,
		Deployments: []wire.DeploymentSummary{{ID: "a", State: wire.DeploymentPending}, {ID: "b", State: wire.DeploymentFailed, Detail: "no"}},
		LastError:   s.LastError,
	}, s)
	text, err := json.Marshal(s)
	require.NoError(t, err)
	assert.NotContains(t, string(text), "secret")

	c.PlannedAt = epoch.AddDate(0, 0, 40)
	assert.Equal(t, c.PlannedAt, c.Summary().RenewAt, "what the engine means to do, not what it drew")
}

// The names of a row are those in the certificate that is served, whatever is
// wanted, and those that are wanted while none is.
func TestSummaryHasTheNamesThatAreServed(t *testing.T) {
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(t, err)
	certificate := func(number int64, names ...string) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(number), DNSNames: names, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 7)}, NotBefore: epoch, NotAfter: epoch.AddDate(0, 0, 90),
		}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return cert
	}
	chain := string(pki.EncodeChainPEM([]*x509.Certificate{certificate(2, "web.example.com", "extra.example.com"), certificate(3, "ca.example.com")}))
	names := func(c *Certificate) []string { return c.Summary().Names.Strings() }

	c := &Certificate{Name: "web", Names: pki.MustParseNames("web.example.org"), ConfigDigest: "new", Next: &Generation{ChainPEM: chain, ConfigDigest: "old"}}
	assert.Equal(t, []string{"web.example.org"}, names(c), "what is wanted, while nothing is in service")
	assert.False(t, c.Summary().Former)
	c.Current, c.Next = c.Next, nil
	assert.Equal(t, []string{"extra.example.com", "web.example.com", "192.0.2.7"}, names(c))
	assert.True(t, c.Summary().Former)
	c.ConfigDigest = "old"
	assert.Equal(t, []string{"extra.example.com", "web.example.com", "192.0.2.7"}, names(c), "an authority may add names")
	assert.False(t, c.Summary().Former)

	c.Current.ChainPEM = "unreadable"
	assert.Equal(t, []string{"web.example.org"}, names(c), "for these it was issued")
	c.ConfigDigest = "new"
	assert.Empty(t, names(c), "for others it was issued")
}

// Housekeeping that the coordinator need not know of is no change of the row.
func TestRowChangesOnlyWithItsSummary(t *testing.T) {
	s := openTest(t, Options{})
	put(t, s, "web", epoch, epoch)
	first, err := s.Changes(0, 0)
	require.NoError(t, err)
	put(t, s, "web", epoch.Add(time.Hour), epoch)
	require.NoError(t, s.Update("web", func(tx *CertificateTx) error { tx.Record.OrderState = []byte(`{"n":1}`); return nil }))
	again, err := s.Changes(0, 0)
	require.NoError(t, err)
	require.Equal(t, first, again)
}

// However much a record holds, its row is one that the coordinator accepts.
func TestRowsStayWithinTheirLimit(t *testing.T) {
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprintf("%03d.%s.%s.example.com", i, strings.Repeat("a", 63), strings.Repeat("b", 63))
	}
	for _, deployments := range []int{0, 3, 30, 100, 2000} {
		for _, names := range []int{1, 20, 100} {
			c := &Certificate{
				Name: "web", Names: pki.MustParseNames(many[:names]...), Attempt: 1,
				LastError: strings.Repeat("<", 5000), NeedsAttention: strings.Repeat("ü", 5000),
				Current: &Generation{IssuerDN: strings.Repeat("d", 5000)}, Deployments: map[string]Deployment{},
			}
			for i := range deployments {
				c.Deployments[fmt.Sprintf("target-%04d", i)] = Deployment{
					Outcome: wire.DeploymentVerified, Fingerprint: strings.Repeat("f", 64), At: epoch, Detail: strings.Repeat("x", 2000)}
			}
			if deployments > 20 {
				broken := c.Deployments["target-0020"]
				broken.Outcome = wire.DeploymentBroken
				c.Deployments["target-0020"] = broken
			}
			data, err := encodeRow(c.Summary())
			require.NoError(t, err, "%d deployments, %d names", deployments, names)
			require.LessOrEqual(t, len(data), wire.MaxRowBytes)
			var row wire.Summary
			require.NoError(t, json.Unmarshal(data, &row))
			require.NotEmpty(t, row.Names.DNS)
			require.NotEmpty(t, row.LastError)
			if n := len(row.Deployments); n < deployments {
				var omitted int
				_, err := fmt.Sscan(row.Deployments[n-1].Detail, &omitted)
				require.NoError(t, err)
				require.Equal(t, deployments, n-1+omitted, "what is left out is counted")
				require.Contains(t, string(data), `"target-0020"`, "what is broken is shown")
			}
		}
	}
}
