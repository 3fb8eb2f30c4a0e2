package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func validSync(t testing.TB) *SyncRequest {
	t.Helper()
	data, err := json.Marshal(Summary{State: StateValid, Issuer: "le", IssuerKind: "acme"})
	require.NoError(t, err)
	return &SyncRequest{
		Protocol: Protocol, BootID: "boot-0001", Sequence: 1, Host: HostReport{Hostname: "web1"},
		BaseRevision: 4, Revision: 6, HeadRevision: 9,
		Rows:    []Row{{Name: "web", Revision: 5, Data: data}},
		Removed: []Removal{{Name: "old", Revision: 6}},
		Events:  []Event{{Sequence: 1, Kind: EventIssued, Certificate: "web"}},
		Orders:  []OrderRequest{{ID: "order-0001", Certificate: "web", CSR: []byte{0x30}}},
	}
}

// beyond is a time that is good JSON and has five digits of the year in UTC.
func beyond(t testing.TB) time.Time {
	t.Helper()
	var at time.Time
	require.NoError(t, json.Unmarshal([]byte(`"9999-12-31T23:59:59-01:00"`), &at))
	return at
}

func TestValidateNamesTheFieldThatIsWrong(t *testing.T) {
	require.Nil(t, validSync(t).Validate())
	long := strings.Repeat("x", MaxTextLen+1)
	for field, spoil := range map[string]func(*SyncRequest){
		"protocol":                   func(r *SyncRequest) { r.Protocol = 99 },
		"boot_id":                    func(r *SyncRequest) { r.BootID = "a b c d e f" },
		"sequence":                   func(r *SyncRequest) { r.Sequence = 0 },
		"revision":                   func(r *SyncRequest) { r.HeadRevision = 5 },
		"resync_id":                  func(r *SyncRequest) { r.ResyncID = "?" },
		"rows":                       func(r *SyncRequest) { r.Rows = make([]Row, MaxRows+1) },
		"events":                     func(r *SyncRequest) { r.Events = make([]Event, MaxEvents+1) },
		"orders":                     func(r *SyncRequest) { r.Orders = make([]OrderRequest, MaxOrders+1) },
		"collected":                  func(r *SyncRequest) { r.Collected = make([]string, MaxOrders+1) },
		"collected[0]":               func(r *SyncRequest) { r.Collected = []string{"x"} },
		"rows[0].name":               func(r *SyncRequest) { r.Rows[0].Name = "a\x00b" },
		"rows[0].revision":           func(r *SyncRequest) { r.Rows[0].Revision = 4 },
		"rows[0].data":               func(r *SyncRequest) { r.Rows[0].Data = []byte(`{"state":7}`) },
		"removed[0].name":            func(r *SyncRequest) { r.Removed[0].Name = "web" },
		"removed[0].revision":        func(r *SyncRequest) { r.Removed[0].Revision = 7 },
		"events[0].sequence":         func(r *SyncRequest) { r.Events[0].Sequence = 0 },
		"events[0].kind":             func(r *SyncRequest) { r.Events[0].Kind = "" },
		"events[0].issuer":           func(r *SyncRequest) { r.Events[0].Issuer = "a\nb" },
		"events[0].reason":           func(r *SyncRequest) { r.Events[0].Reason = "Too bad" },
		"events[0].detail":           func(r *SyncRequest) { r.Events[0].Detail = long },
		"events[0].certificate":      func(r *SyncRequest) { r.Events[0].Certificate = long },
		"orders[0].id":               func(r *SyncRequest) { r.Orders[0].ID = "short" },
		"orders[0].csr":              func(r *SyncRequest) { r.Orders[0].CSR = nil },
		"orders[0].certificate":      func(r *SyncRequest) { r.Orders[0].Certificate = "" },
		"orders[0].validity_seconds": func(r *SyncRequest) { r.Orders[0].ValiditySeconds = -1 },
		"host.started_at":            func(r *SyncRequest) { r.Host.StartedAt = beyond(t) },
		"host.warnings":              func(r *SyncRequest) { r.Host.Warnings = []string{strings.Repeat("x", MaxHostWarningLen+1)} },
		"host.not_safe":              func(r *SyncRequest) { r.Host.NotSafe = -1 },
		"host.safe_until":            func(r *SyncRequest) { at := beyond(t); r.Host.SafeUntil = &at },
		"events[0].at":               func(r *SyncRequest) { r.Events[0].At = beyond(t) },
		"host.hostname":              func(r *SyncRequest) { r.Host.Hostname = long },
	} {
		t.Run(field, func(t *testing.T) {
			r := validSync(t)
			spoil(r)
			p := r.Validate()
			require.NotNil(t, p)
			assert.Equal(t, field, p.Field)
			assert.NotEmpty(t, p.Detail)
			assert.Contains(t, p.Error(), field)
		})
	}
}

func TestDecodeRefusesWhatIsTooLargeOrCut(t *testing.T) {
	var r SyncRequest
	p := Decode(strings.NewReader(strings.Repeat(" ", 101)), 100, &r)
	require.NotNil(t, p)
	assert.Equal(t, CodeBodyTooLarge, p.Code)
	assert.Equal(t, 413, p.Status)

	whole, err := json.Marshal(validSync(t))
	require.NoError(t, err)
	require.Nil(t, Decode(strings.NewReader(string(whole)), MaxSyncBody, &r))
	p = Decode(strings.NewReader(string(whole[:len(whole)/2])), MaxSyncBody, &r)
	require.NotNil(t, p)
	assert.Equal(t, CodeInvalid, p.Code)

	p = Decode(strings.NewReader(`{"sequence":"one"}`), MaxSyncBody, &r)
	require.NotNil(t, p)
	assert.Equal(t, "sequence", p.Field)
}

// What can be wrong with a row beyond the shape of the JSON.
func TestValidateRefusesRowsThatCannotBeStored(t *testing.T) {
	for name, spoil := range map[string]func(*Summary){
		"serial":      func(s *Summary) { s.Serial = strings.Repeat("a", MaxNameLen+1) },
		"fingerprint": func(s *Summary) { s.Fingerprint = strings.Repeat("a", MaxNameLen+1) },
		"not before":  func(s *Summary) { s.NotBefore = beyond(t) },
		"not after":   func(s *Summary) { s.NotAfter = beyond(t) },
	} {
		s := Summary{State: StateValid, Issuer: "le", IssuerKind: "acme"}
		spoil(&s)
		data, err := json.Marshal(s)
		require.NoError(t, err)
		r := validSync(t)
		r.Rows[0].Data = data
		p := r.Validate()
		require.NotNil(t, p, name)
		assert.Equal(t, "rows[0].data", p.Field, name)
	}
	r := validSync(t)
	r.Rows = append(r.Rows, Row{Name: "mail", Revision: r.Rows[0].Revision, Data: r.Rows[0].Data})
	p := r.Validate()
	require.NotNil(t, p, "two rows of one revision cannot be told apart by it, nor be stored apart")
	assert.Equal(t, "rows[1].revision", p.Field)
}

// An enrolment needs no identity, so that its refusal must not be a way to fill
// the coordinator's log.
func TestRefusalsRepeatLittle(t *testing.T) {
	long := strings.Repeat("9", 60_000)
	for name, body := range map[string]string{
		"number":  `{"protocol":1,"token":` + long + `}`,
		"time":    `{"protocol":1,"host":{"started_at":"` + long + `"}}`,
		"names":   `{"protocol":1,"names":["` + long + `"]}`,
		"integer": `{"protocol":` + long + `}`,
	} {
		var r EnrollRequest
		p := Decode(strings.NewReader(body), MaxEnrollBody, &r)
		require.NotNil(t, p, name)
		assert.Less(t, len(p.Error()), 1000, name)
	}
}

// The digest of an inventory depends on what is in it, not on the order in
// which it came, and every change of a row changes it.
func TestDigestIsThatOfTheSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Row {
			return Row{
				Name:     rapid.StringN(1, 8, -1).Draw(t, "name"),
				Revision: rapid.Uint64().Draw(t, "revision"),
				Data:     json.RawMessage(rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "data")),
			}
		}), 1, 20, func(r Row) string { return r.Name }).Draw(t, "rows")
		var d, shuffled Digest
		for _, r := range rows {
			d.Toggle(r.Hash())
		}
		for _, r := range rapid.Permutation(rows).Draw(t, "order") {
			shuffled.Toggle(r.Hash())
		}
		require.Equal(t, d, shuffled)

		changed := rows[0]
		changed.Revision++
		other := d
		other.Toggle(rows[0].Hash())
		other.Toggle(changed.Hash())
		require.NotEqual(t, d, other)

		text, err := d.MarshalText()
		require.NoError(t, err)
		var back Digest
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, d, back)

		for _, r := range rows {
			d.Toggle(r.Hash())
		}
		require.Equal(t, Digest{}, d)
	})
}

// A name's length is hashed before the name, so that bytes cannot move between
// name and data unseen.
func TestRowHashSeparatesFields(t *testing.T) {
	a := Row{Name: "ab", Revision: 1, Data: json.RawMessage("c")}
	b := Row{Name: "a", Revision: 1, Data: json.RawMessage("bc")}
	assert.NotEqual(t, a.Hash(), b.Hash())
}

func TestDigestRefusesBadText(t *testing.T) {
	var d Digest
	assert.ErrorContains(t, d.UnmarshalText([]byte("abc")), "expected 64 of hex")
	assert.ErrorContains(t, d.UnmarshalText([]byte(strings.Repeat("z", 64))), "not hex")
}

func TestTokenRoundTripAndRedaction(t *testing.T) {
	token := EnrollmentToken{ID: "abc123", Secret: sha256.Sum256([]byte("s")), RootPin: sha256.Sum256([]byte("p"))}
	back, err := ParseEnrollmentToken(" " + token.Reveal() + "\n")
	require.NoError(t, err)
	assert.Equal(t, token, back)
	assert.Equal(t, sha256.Sum256(token.Secret[:]), token.SecretHash())

	secret := base64.RawURLEncoding.EncodeToString(token.Secret[:])
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", token)
	for _, shown := range []string{token.String(), fmt.Sprintf("%v %+v %#v %s", token, token, token, token), log.String()} {
		assert.NotContains(t, shown, secret)
		assert.Contains(t, shown, "abc123")
	}
	_, err = json.Marshal(token)
	assert.Error(t, err)
}

func TestTokenErrorsNeverRepeatTheToken(t *testing.T) {
	token := EnrollmentToken{ID: "abc123", Secret: sha256.Sum256([]byte("s")), RootPin: sha256.Sum256([]byte("p"))}
	good := token.Reveal()
	parts := strings.Split(good, ".")
	for name, bad := range map[string]string{
		"empty":         "",
		"other prefix":  "xxx." + good,
		"cut":           good[:len(good)-3],
		"bad id":        strings.Replace(good, "abc123", "ABC 12", 1),
		"short secret":  strings.Join([]string{parts[0], parts[1], parts[2][:20], parts[3]}, "."),
		"line break":    strings.Join([]string{parts[0], parts[1], parts[2][:10] + "\n" + parts[2][10:], parts[3]}, "."),
		"padded secret": strings.Join([]string{parts[0], parts[1], parts[2] + "=", parts[3]}, "."),
	} {
		_, err := ParseEnrollmentToken(bad)
		require.ErrorIs(t, err, errToken, name)
		assert.NotContains(t, err.Error(), parts[2][:10], name)
	}
}

func TestProblemReadsAsOneLine(t *testing.T) {
	p := &Problem{Status: 403, Code: CodeNamesRefused, Field: "names", Detail: "a.example is not allowed", Mend: "ask for another token", RetryAfterSeconds: 7}
	assert.Equal(t, "a.example is not allowed (field names) [names_refused]; ask for another token", p.Error())
	assert.Equal(t, 7*time.Second, p.RetryAfter())
	assert.Equal(t, "the coordinator answered 502 []", (&Problem{Status: 502}).Error())
}

func FuzzParseEnrollmentToken(f *testing.F) {
	f.Add("cte1.abc123.x.y")
	f.Add(EnrollmentToken{ID: "abc123"}.Reveal())
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseEnrollmentToken(text)
		if err == nil && token.Reveal() != strings.TrimSpace(text) {
			t.Fatalf("%q was accepted, but reads back as another text", text)
		}
	})
}

func FuzzDecodeSync(f *testing.F) {
	whole, err := json.Marshal(validSync(f))
	require.NoError(f, err)
	f.Add(whole)
	f.Add([]byte(`{"protocol":1,"rows":[{}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var r SyncRequest
		if Decode(strings.NewReader(string(body)), MaxSyncBody, &r) != nil || r.Validate() != nil {
			return
		}
		for _, row := range r.Rows {
			if _, err := row.Summary(); err != nil {
				t.Fatalf("a valid request carries a row that is no summary: %v", err)
			}
		}
	})
}
