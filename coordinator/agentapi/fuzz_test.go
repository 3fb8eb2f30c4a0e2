package agentapi

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// stateWithAgent is a state that knows one agent, "a".
func stateWithAgent(t testing.TB) *fleet.State {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	for i, payload := range []fleet.Payload{
		fleet.CreateEnrollmentToken{ID: "token", NamePatterns: []string{"**.example.com"}, ExpiresAt: time.Now().Add(time.Hour)},
		fleet.EnrollAgent{TokenID: "token", AgentID: "a", Identity: fleet.Identity{Fingerprint: "f", PublicKeyFingerprint: "p"}},
	} {
		command, err := fleet.NewCommand(time.Now(), payload)
		require.NoError(t, err)
		entry, err := fleet.EncodeEntry([]fleet.Command{command})
		require.NoError(t, err)
		results, _, err := state.Apply(uint64(i+1), entry)
		require.NoError(t, err)
		require.NoError(t, results[0].Err())
	}
	return state
}

// Whatever an agent may send becomes commands that fit in the log and that every
// node can apply: one that cannot be applied would stop the whole cluster.
func FuzzWhatIsValidCanBeApplied(f *testing.F) {
	state := stateWithAgent(f)
	service := &Service{reserved: pki.MustParseNames("pki.example.com"), known: func(string) bool { return true }, now: time.Now}
	key, err := pki.GenerateKey(pki.ECDSAP256)
	require.NoError(f, err)
	csr, err := pki.CreateCSR(key, pki.MustParseNames("www.example.com"))
	require.NoError(f, err)
	data, err := json.Marshal(wire.Summary{Names: pki.MustParseNames("www.example.com"), State: wire.StateValid, NotAfter: time.Now()})
	require.NoError(f, err)
	now := time.Now()
	whole, err := json.Marshal(wire.SyncRequest{
		Protocol: wire.Protocol, BootID: "boot-0001", Sequence: 1, Host: wire.HostReport{Hostname: "web1", StartedAt: now, SafeUntil: &now},
		Revision: 2, HeadRevision: 2,
		Rows: []wire.Row{{Name: "web", Revision: 1, Data: data}}, Removed: []wire.Removal{{Name: "old", Revision: 2}},
		Events:    []wire.Event{{Sequence: 1, At: now, Kind: wire.EventIssued, Certificate: "web"}},
		Orders:    []wire.OrderRequest{{ID: "order-0001", Certificate: "web", CSR: csr}, {ID: "order-0002", Certificate: "web", CSR: []byte{0x30}}, {ID: "order-0004", Certificate: "web", Issuer: "slow", CSR: csr, ValiditySeconds: 1 << 40, PlacedAt: now}},
		Collected: []string{"order-0003"},
	})
	require.NoError(f, err)
	f.Add(whole)
	f.Add(bytes.Replace(whole, []byte(`"hostname":"web1"`), []byte("\"hostname\":\"w\xff\xfe1\""), 1))
	f.Add(bytes.Replace(whole, []byte(`"kind":"`), []byte("\"kind\":\"\xed\xa0\x80"), 1))
	f.Add([]byte(`{"protocol":1,"boot_id":"boot-0001","sequence":1,"host":{"started_at":"9999-12-31T23:59:59-01:00"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var request wire.SyncRequest
		if wire.Decode(bytes.NewReader(body), wire.MaxSyncBody, &request) != nil || request.Validate() != nil {
			return
		}
		change, err := service.syncChange(state.View(), "a", &request)
		require.NoError(t, err)
		for _, piece := range fleet.SplitSync(*change, syncPiece) {
			command, err := fleet.NewCommand(time.Now(), piece)
			require.NoError(t, err)
			_, err = fleet.EncodeEntry([]fleet.Command{command})
			require.NoError(t, err)
			_, err = state.Preview(command)
			require.NoError(t, err)
		}
	})
}

// Whatever anybody sends to wire.TrustPath is refused as malformed, or answered
// with a part of the chain.
func FuzzTrustRequest(f *testing.F) {
	state := stateWithAgent(f)
	f.Add([]byte(`{"protocol":1,"trust":{"generation":0}}`))
	f.Add([]byte(`{"protocol":1,"trust":{"generation":1,"digest":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}`))
	f.Add([]byte(`{"protocol":1,"trust":{"generation":18446744073709551615,"digest":""}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var request wire.TrustRequest
		if p := wire.Decode(bytes.NewReader(body), wire.MaxTrustRequest, &request); p != nil {
			return
		}
		if p := request.Validate(); p != nil {
			require.NotEmpty(t, p.Field)
			return
		}
		missing, known, err := missingTrust(state.View(), &request.Trust)
		require.NoError(t, err)
		require.Empty(t, missing, "this state has no chain")
		require.Zero(t, known)
	})
}
