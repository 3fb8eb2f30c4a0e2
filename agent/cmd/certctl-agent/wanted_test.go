package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/settings"
	"github.com/certctl/certctl/shared/wire"
)

func rollOf(t *testing.T, dir, text string) *roll {
	t.Helper()
	var s config.Settings
	report, err := settings.Load(&s, settings.Options{File: "agent.yaml", Text: []byte(text)})
	require.NoError(t, err)
	st, err := store.Open(filepath.Join(dir, "state", "state.db"), store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	r, err := newRoll(&parts{
		settings: &s, report: report, accountKeys: nowhere{}, issuerState: nowhere{}, coordinator: absentAt, log: slog.New(slog.DiscardHandler),
	}, st)
	require.NoError(t, err)
	return r
}

func namesOf(list []renewal.Managed) []string {
	names := make([]string, 0, len(list))
	for _, m := range list {
		names = append(names, m.Name)
	}
	return names
}

// The list is the host's own certificates and the assignments that can be made;
// one that cannot is refused, and keeps no other away.
func TestTheRoll(t *testing.T) {
	dir := t.TempDir()
	certs := filepath.Join(dir, "certs")
	r := rollOf(t, dir, fmt.Sprintf(`{"state_dir": %q, "assignments": {"allow_paths": [%q]}, "certificates": [{"name": "own", "names": ["own.example.com"], "issuer": "coordinator/digicert"}]}`, filepath.Join(dir, "state"), certs))
	file := func(form, name string) []byte {
		return fmt.Appendf(nil, `{"names":["a.example.com"],"deployments":[{"files":{%q:%q}}]}`, form, filepath.Join(certs, name))
	}
	require.NoError(t, r.store.SaveDesired(&wire.Desired{Digest: "d1", Assignments: []wire.Assignment{
		{Name: "a", Revision: 1, Certificate: file("combined", "a")},
		{Name: "b", Revision: 1, Certificate: file("key", "b")},
		{Name: "c", Revision: 1, Certificate: []byte(`{"names":["c.example.org"]}`)},
		{Name: "own", Revision: 1, Certificate: []byte(`{"names":["own.example.com"]}`)},
	}}))

	list, _, err := r.managed()
	require.NoError(t, err)
	assert.Equal(t, []string{"own"}, namesOf(list), "a host that is not enrolled has no name patterns")
	warned, err := hostWarnings(new(configuration), r, r.store)
	require.NoError(t, err)
	assert.Len(t, warned, 3, "each refused assignment, and not the one that the host defines itself: %q", warned)
	assert.Equal(t, []string{"own"}, r.brokered())

	require.NoError(t, r.store.SaveIdentity(&store.Identity{AgentID: "agent-1", NamePatterns: []string{"*.example.com"}}))
	list, made, err := r.managed()
	require.NoError(t, err)
	assert.Equal(t, []string{"own", "a"}, namesOf(list))
	assert.Equal(t, []string{"own", "a"}, r.brokered())
	for _, m := range list {
		assert.Equal(t, absent{}, m.Issuers[0].Issuer)
	}
	assert.Equal(t, "d1", made.Digest)
	require.Len(t, made.Reports, 4)
	for i, want := range []struct {
		state wire.AssignmentState
		says  string
	}{
		{wire.AssignmentActive, ""}, {wire.AssignmentRefused, "at least one of certificate"},
		{wire.AssignmentRefused, "c.example.org"}, {wire.AssignmentShadowed, "own configuration"},
	} {
		assert.Equal(t, want.state, made.Reports[i].State, made.Reports[i].Detail)
		assert.Contains(t, made.Reports[i].Detail, want.says)
	}

	// Another place for the same certificate is a change that the engine sees.
	before := list[1].Deployments[0].Config
	require.NoError(t, r.store.SaveDesired(&wire.Desired{Digest: "d2", Assignments: []wire.Assignment{{Name: "a", Revision: 2, Certificate: file("combined", "a2")}}}))
	list, made, err = r.managed()
	require.NoError(t, err)
	assert.NotEqual(t, before, list[1].Deployments[0].Config)
	assert.Len(t, made.Reports, 1)

	// A change that is refused leaves the one before it in force.
	last := list[1].Deployments[0].Config
	require.NoError(t, r.store.SaveDesired(&wire.Desired{Digest: "d2b", Assignments: []wire.Assignment{{Name: "a", Revision: 3, Certificate: file("key", "a3")}}}))
	list, made, err = r.managed()
	require.NoError(t, err)
	assert.Equal(t, []string{"own", "a"}, namesOf(list))
	assert.Equal(t, last, list[1].Deployments[0].Config)
	assert.Equal(t, wire.AssignmentRefused, made.Reports[0].State)
	assert.Contains(t, made.Reports[0].Detail, "revision 2 stays in force")

	require.NoError(t, r.store.SaveDesired(&wire.Desired{Digest: "d3"}))
	list, made, err = r.managed()
	require.NoError(t, err)
	assert.Equal(t, []string{"own"}, namesOf(list))
	assert.Empty(t, made.Reports)
	assert.Equal(t, "d3", made.Digest)
}
