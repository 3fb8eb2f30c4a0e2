package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/agent/keys"
	"github.com/certctl/certctl/agent/renewal"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/agent/sync"
	"github.com/certctl/certctl/shared/pki"
)

// What is known of the coordinator's answers is what a drill supposes of it.
func TestWhatTheCoordinatorIsKnownToRefuse(t *testing.T) {
	dir, err := keys.OpenDir(filepath.Join(t.TempDir(), "identity"))
	require.NoError(t, err)
	id, _, err := dir.Create(pki.ECDSAP256)
	require.NoError(t, err)
	subject := &renewal.Subject{
		Record:  &store.Certificate{Name: "web", Phase: store.PhaseIdle},
		Issuers: []renewal.SubjectIssuer{{Name: "builtin", Kind: "coordinator"}, {Name: "le", Kind: "acme"}},
	}
	for name, c := range map[string]struct {
		identity *store.Identity
		missing  bool
		says     string
	}{
		"never enrolled":  {nil, false, "not enrolled"},
		"about to be":     {&store.Identity{Enrolling: &store.Enrolling{}}, false, "not enrolled"},
		"retired":         {&store.Identity{AgentID: "a", KeyID: id, Retired: true}, false, "has retired this agent"},
		"without its key": {&store.Identity{AgentID: "a", KeyID: id}, true, "key of this host's identity is missing"},
		"well":            {&store.Identity{AgentID: "a", KeyID: id}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := dir.Path()
			if c.missing {
				path = t.TempDir()
			}
			problem := ""
			if c.identity != nil && keys.Missing(path, c.identity.KeyID) {
				problem = "the key of this host's identity is missing"
			}
			refuses := refusal(sync.StandingOf(c.identity), problem)
			o := outages{ahead: span{400 * 24 * time.Hour}}
			scenario, err := o.scenario([]*renewal.Subject{subject}, refuses, time.Now())
			require.NoError(t, err)
			assert.Nil(t, scenario.Issuers["le"].Refuses, "no other issuer is concerned")
			if c.says == "" {
				assert.Nil(t, scenario.Issuers["builtin"].Refuses)
				return
			}
			require.ErrorContains(t, scenario.Issuers["builtin"].Refuses, c.says)
			forecast, err := renewal.Drill([]*renewal.Subject{{Record: subject.Record, Issuers: subject.Issuers[:1]}}, scenario)
			require.NoError(t, err)
			assert.False(t, forecast.Well())
		})
	}
	assert.Equal(t, issuer.ClassPending, refusal(sync.Unknown, "").Class)
	assert.Nil(t, refusal(sync.CutOff, ""), "it may come back")
}
