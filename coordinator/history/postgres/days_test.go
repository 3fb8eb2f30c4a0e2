package postgres_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/fleet"
)

// dayFact is the fact that a recorded day makes: of the real state machine.
func dayFact(t *testing.T, index uint64, day fleet.Day) fleet.Fact {
	t.Helper()
	state, err := fleet.New()
	require.NoError(t, err)
	at, err := fleet.DayBegin(day.Date)
	require.NoError(t, err)
	command, err := fleet.NewCommand(at.Add(25*time.Hour), fleet.RecordDay{Day: day})
	require.NoError(t, err)
	entry, err := fleet.EncodeEntry([]fleet.Command{command})
	require.NoError(t, err)
	_, facts, err := state.Apply(index, entry)
	require.NoError(t, err)
	require.Len(t, facts, 1)
	return facts[0]
}

// Sums of days are read by SQL, each field where it belongs, in tables that an earlier
// version has made too.
func TestDaysAreReadBySQL(t *testing.T) {
	w := newWorld(t, sharedServer(t))
	horizon, dropped := time.Date(2026, 6, 1, 2, 3, 4, 0, time.UTC), uint64(1)<<63
	whole := fleet.Day{Date: "2026-05-02", Final: true,
		Standing: &fleet.DayStanding{
			CountedAt: time.Date(2026, 5, 3, 0, 4, 0, 0, time.UTC), Hosts: 1, Connected: 2, CutOff: 3, Retired: 4, AtRisk: 5, NotSafe: 6, Horizon: &horizon,
			ClockSkewed: 7, Certificates: 8, Expired: 9, Attention: 10, Verified: 11, Failed: 12, Expiring: []uint64{13, 14},
			States: []fleet.Count{{Name: "valid", Count: 15}}, Health: []fleet.Count{{Name: "ok", Count: 16}},
			Versions: []fleet.Count{{Name: "v1", Count: 17}}, Risks: []fleet.Count{{Name: "cut_off", Count: 18}},
		},
		Activity: fleet.DayActivity{Partial: true, Renewed: 19, Failed: 20, RenewedOffline: 21, EventsDropped: &dropped, Issuers: []fleet.IssuerActivity{
			{Issuer: "corp", Renewed: 19, Failed: 20, RenewedOffline: 21, Reasons: []fleet.Count{{Name: "limited", Count: 13}, {Name: "refused", Count: 7}}},
			{Issuer: "it's", Renewed: 1},
		}},
	}
	before := whole
	before.Standing = nil
	w.append(
		routine(1, time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)),
		dayFact(t, 2, fleet.Day{Date: "2026-05-01", Final: true, Activity: fleet.DayActivity{Renewed: 3}}),
		dayFact(t, 3, before), dayFact(t, 4, whole),
		// What is no such fact at all does not break the view.
		fleet.Fact{Index: 5, Time: time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC), Kind: fleet.KindDayRecorded, Object: "2026-05-03", Detail: json.RawMessage(`"cut`)},
	)
	first, err := os.ReadFile("migrations/001_facts.sql")
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), w.server.URL(w.name))
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "create schema certctl; create table certctl.schema_version (version integer not null); insert into certctl.schema_version values (1);"+string(first))
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
	e, _ := w.start(w.config)
	exported(t, e, 5)

	assert.Equal(t, "3", w.query("select count(*)::text from certctl.report_days"))
	assert.Equal(t, "3 (null)", w.query("select renewed || ' ' || coalesce(hosts::text, '(null)') from certctl.report_days where day = '2026-05-01'"))
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(w.query("select row_to_json(d)::text from certctl.report_days d where day = date '2026-05-02'")), &got))
	for _, moment := range []string{"recorded_at", "counted_at", "safe_until"} {
		at, err := time.Parse(time.RFC3339, got[moment].(string))
		require.NoError(t, err)
		got[moment] = at.UTC().Format(time.RFC3339)
	}
	list := func(name string, count float64) []any {
		return []any{map[string]any{"name": name, "count": count}}
	}
	assert.Equal(t, map[string]any{
		"day": "2026-05-02", "recorded_at": "2026-05-03T01:00:00Z", "counted_at": "2026-05-03T00:04:00Z", "partial": true,
		"renewed": 19., "failed": 20., "renewed_offline": 21., "facts_dropped": 9223372036854775808.,
		"hosts": 1., "connected": 2., "cut_off": 3., "retired": 4., "at_risk": 5., "not_safe": 6., "safe_until": "2026-06-01T02:03:04Z", "clock_wrong": 7.,
		"certificates": 8., "expired": 9., "needing_attention": 10., "deployments_verified": 11., "deployments_failed": 12.,
		"expiring_weeks": []any{13., 14.}, "risks": list("cut_off", 18), "states": list("valid", 15), "health": list("ok", 16), "versions": list("v1", 17),
	}, got, "a day that was recorded again counts as it was last")
	assert.Equal(t, "corp 19 20 21;it's 1 0 0", w.query("select string_agg(concat_ws(' ', issuer, renewed, failed, renewed_offline), ';' order by issuer) "+
		"from certctl.report_day_issuers where day = '2026-05-02'"))
	assert.Equal(t, "limited 13;refused 7", w.query("select string_agg(reason || ' ' || failed, ';' order by reason) from certctl.report_day_reasons where issuer = 'corp'"))
}
