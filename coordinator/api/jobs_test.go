package api_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/apitest"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

const jobsPath = "/api/v1/jobs"

// jobID is what makes a job unique.
func jobID(j resource.Job) string { return string(j.Kind) + " " + j.AgentID + "/" + j.ID }

// underWay makes a fleet in which something of every kind is under way.
func underWay(t *testing.T, w *world) (web0 *apitest.Agent) {
	t.Helper()
	now := w.Now()
	for i := range 3 {
		agent := w.Agent(fmt.Sprint("web", i), fmt.Sprintf("web%d.example.com", i), map[string]string{"env": "prod"})
		if web0 == nil {
			web0 = agent
		}
		agent.Report("ok", apitest.Valid(now, 40*day, "ok.example.com"))
		agent.Report("old", apitest.Valid(now, 10*day, "old.example.com"))
		renewing := apitest.Valid(now, 5*day, "renewing.example.com")
		renewing.State, renewing.RenewAt = wire.StateRenewing, now.Add(-time.Hour).UTC().Truncate(time.Second)
		agent.Report("renewing", renewing)
		agent.Report("first", wire.Summary{State: wire.StatePending, Names: pki.MustParseNames("first.example.com"), Issuer: "ov"})
		failed := apitest.Valid(now, 5*day, "failed.example.com")
		failed.State, failed.Attempt, failed.LastError, failed.NextAttempt = wire.StateFailed, 3, "no route", now.Add(time.Hour).UTC().Truncate(time.Second)
		agent.Report("failed", failed)
		stuck := failed
		stuck.NeedsAttention = "give credentials"
		agent.Report("stuck", stuck)
		refused := failed
		refused.LastError, refused.NeedsAttention = "no such issuer", "no such issuer"
		agent.Report("refused", refused)
	}
	post[resource.Command](w, "/api/v1/certificates/web0/ok/renew", nil, http.StatusAccepted)
	post[resource.RevokedCertificate](w, "/api/v1/revocations", map[string]string{"agent_id": "web1", "certificate": "old", "reason": "superseded"}, http.StatusAccepted)
	post[resource.Renewals](w, "/api/v1/renewals", map[string]any{"selector": "env=prod", "over_seconds": 3600, "reason": "weak keys"}, http.StatusAccepted)
	return web0
}

func jobsBy(jobs []resource.Job) map[string]resource.Job {
	by := make(map[string]resource.Job, len(jobs))
	for _, j := range jobs {
		by[jobID(j)] = j
	}
	return by
}

func TestJobsOfEveryKindInOneVocabulary(t *testing.T) {
	w := start(t)
	web0 := underWay(t, w)
	jobs := get[resource.Page[resource.Job]](w, jobsPath).Items
	by := jobsBy(jobs)
	require.Len(t, by, len(jobs), "one job is there once")
	assert.Equal(t, "web1.example.com", by["renewal web1/stuck"].Hostname)
	for id, want := range map[string]resource.Job{
		"renewal web0/stuck":    {State: resource.JobNeedsPerson, Issuer: "letsencrypt", Mend: "give credentials", Detail: "3 attempts have failed; no route"},
		"renewal web0/refused":  {State: resource.JobNeedsPerson, Issuer: "letsencrypt", Mend: "no such issuer", Detail: "3 attempts have failed"},
		"renewal web0/failed":   {State: resource.JobRetrying, Issuer: "letsencrypt", Detail: "3 attempts have failed; no route"},
		"renewal web0/renewing": {State: resource.JobRunning, Issuer: "letsencrypt"},
		"renewal web0/first":    {State: resource.JobWaiting, Issuer: "ov"},
	} {
		got := by[id]
		assert.Equal(t, want, resource.Job{State: got.State, Issuer: got.Issuer, Mend: got.Mend, Detail: got.Detail}, id)
	}
	assert.WithinDuration(t, w.Now().Add(time.Hour), by["renewal web0/failed"].Next, time.Minute)
	assert.WithinDuration(t, w.Now().Add(-time.Hour), by["renewal web0/renewing"].Since, time.Minute)
	assert.NotContains(t, by, "renewal web0/ok", "nothing is under way for it")
	var kinds []resource.JobKind
	for _, j := range jobs {
		if len(kinds) == 0 || kinds[len(kinds)-1] != j.Kind {
			kinds = append(kinds, j.Kind)
		}
	}
	assert.Equal(t, []resource.JobKind{resource.JobRenewal, resource.JobRevocation, resource.JobCommand, resource.JobMassRenewal}, kinds)
	assert.Equal(t, resource.JobNeedsPerson, jobs[0].State, "those come first")

	command, mass := jobs[len(jobs)-2], jobs[len(jobs)-1]
	assert.Equal(t, resource.JobWaiting, command.State)
	assert.Equal(t, "ok", command.Object)
	assert.Equal(t, "its host has not taken it yet", command.Detail)
	assert.Equal(t, "env=prod", mass.Object)
	assert.Contains(t, mass.Detail, "remaining; weak keys")
	assert.WithinDuration(t, w.Now().Add(time.Hour), mass.Next, time.Minute)

	// What a host says of a command, and that it is cut off.
	web0.Command(command.ID, wire.CommandAccepted, "")
	assert.Equal(t, resource.JobRunning, get[resource.Page[resource.Job]](w, jobsPath+"?kind=command").Items[0].State)
	web0.Command(command.ID, wire.CommandFailed, "its issuer refuses")
	ended := jobsBy(get[resource.Page[resource.Job]](w, jobsPath+"?kind=command&ended=true").Items)[jobID(command)]
	assert.Equal(t, resource.JobFailed, ended.State)
	assert.Equal(t, "its issuer refuses", ended.Detail)
	assert.Empty(t, get[resource.Page[resource.Job]](w, jobsPath+"?kind=command").Items)
	assert.Len(t, get[resource.Page[resource.Job]](w, jobsPath+"?state=failed").Items, 1, "a state in which jobs have ended asks for those")
	w.Sleep(time.Hour)
	assert.Contains(t, jobsBy(get[resource.Page[resource.Job]](w, jobsPath).Items)["renewal web0/renewing"].Detail, "its agent is cut off since")
	post[resource.Renewals](w, "/api/v1/renewals/"+mass.ID+"/cancel", nil, http.StatusOK)
	assert.Equal(t, resource.JobCancelled, get[resource.Page[resource.Job]](w, jobsPath+"?kind=mass_renewal&state=cancelled").Items[0].State)
	assert.Empty(t, get[resource.Page[resource.Job]](w, jobsPath+"?kind=mass_renewal").Items)
}

func TestJobsAreFiltered(t *testing.T) {
	w := start(t)
	underWay(t, w)
	everything := get[resource.Page[resource.Job]](w, jobsPath+"?ended=true").Items
	for query, is := range map[string]func(resource.Job) bool{
		"?kind=renewal": func(j resource.Job) bool { return j.Kind == resource.JobRenewal },
		"?kind=revocation,mass_renewal": func(j resource.Job) bool {
			return j.Kind == resource.JobRevocation || j.Kind == resource.JobMassRenewal
		},
		"?state=needs_person":                    func(j resource.Job) bool { return j.State == resource.JobNeedsPerson },
		"?state=retrying,running":                func(j resource.Job) bool { return j.State == resource.JobRetrying || j.State == resource.JobRunning },
		"?agent=web1":                            func(j resource.Job) bool { return j.AgentID == "web1" },
		"?agent=web1&kind=renewal&state=waiting": func(j resource.Job) bool { return jobID(j) == "renewal web1/first" },
		"?agent=web2&kind=revocation":            func(resource.Job) bool { return false },
	} {
		var want []string
		for _, j := range everything {
			if is(j) {
				want = append(want, jobID(j))
			}
		}
		for _, limit := range []string{"1", "2", "50"} {
			got, _ := all[resource.Job](w, jobsPath+query, limit)
			assert.ElementsMatch(t, want, idsOf(got, jobID), query)
		}
	}
	w.ask(http.MethodGet, jobsPath+"?agent=none", nil).problem(t, http.StatusNotFound, wire.CodeNotFound)
	assert.Equal(t, "kind", w.ask(http.MethodGet, jobsPath+"?kind=none", nil).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field[:4])
	for _, cursor := range []string{"x", "AAAA", "bm9uZQA", "cmVuZXdhbC9wZW5kaW5nAHg"} { // no section, one that is none, a place that is none
		assert.Equal(t, "cursor", w.ask(http.MethodGet, jobsPath+"?cursor="+cursor, nil).problem(t, http.StatusBadRequest, wire.CodeInvalid).Field, cursor)
	}
}

// What an authority behind the coordinator is to revoke is a job, as far as that is.
func TestARevocationAtAnAuthorityIsAJob(t *testing.T) {
	w := start(t)
	web := w.Agent("web1", "web1.example.com", nil)
	web.AtEveryStage()
	w.Agent("web2", "web2.example.com", nil)
	delivered := get[resource.Order](w, orderPath("web1", fleet.StageDelivered))
	job := func(query string) *resource.Job {
		t.Helper()
		jobs := get[resource.Page[resource.Job]](w, jobsPath+"?kind=revocation"+query).Items
		if len(jobs) == 0 {
			return nil
		}
		require.Len(t, jobs, 1)
		j := jobs[0]
		assert.Equal(t, delivered.ID, j.ID)
		assert.Equal(t, "delivered", j.Object)
		assert.Equal(t, "ov", j.Issuer)
		assert.Equal(t, "web1.example.com", j.Hostname)
		assert.Contains(t, j.Detail, "serial number "+delivered.Serial)
		assert.False(t, j.Since.IsZero())
		return &j
	}
	step := func(step fleet.RevocationStep, failure string) {
		t.Helper()
		w.Do(fleet.RevokeOrder{Actor: "local", Agent: "web1", ID: delivered.ID, Step: step, Reason: 1, Failure: failure})
	}
	assert.Nil(t, job("&ended=true"))
	step(fleet.RevocationAsked, "")
	assert.Equal(t, resource.JobRunning, job("").State)
	step(fleet.RevocationFailed, "the key may not revoke")
	failed := job("&agent=web1")
	assert.Equal(t, resource.JobRetrying, failed.State)
	assert.Contains(t, failed.Detail, "NOT REVOKED; the key may not revoke")
	assert.NotEmpty(t, failed.Mend)
	assert.Nil(t, job("&agent=web2"))
	step(fleet.RevocationTaken, "")
	assert.Equal(t, resource.JobWaiting, job("").State)
	assert.Contains(t, job("").Detail, "decides later")
	step(fleet.RevocationDone, "")
	assert.Nil(t, job(""))
	assert.Equal(t, resource.JobDone, job("&ended=true").State)
	assert.Equal(t, resource.JobDone, job("&state=done").State)
}

// A mass renewal of which nothing is left is over, whatever time it had.
func TestAMassRenewalEndsAsAJob(t *testing.T) {
	w := start(t)
	web := w.Agent("web1", "web1.example.com", map[string]string{"env": "prod"})
	before := apitest.Valid(w.Now(), 10*day, "www.example.com")
	web.Report("www", before)
	post[resource.Renewals](w, "/api/v1/renewals", map[string]any{"selector": "env=prod", "over_seconds": 3600}, http.StatusAccepted)
	require.Len(t, get[resource.Page[resource.Job]](w, jobsPath+"?kind=mass_renewal").Items, 1)
	before.Serial = "77"
	web.Report("www", before)
	assert.Empty(t, get[resource.Page[resource.Job]](w, jobsPath+"?kind=mass_renewal").Items)
	over := get[resource.Page[resource.Job]](w, jobsPath+"?ended=true").Items
	require.Len(t, over, 1)
	assert.Equal(t, resource.JobDone, over[0].State)
	assert.Equal(t, "1 of 1 replaced, 0 remaining", over[0].Detail)
}

// Whatever else changes between two pages, a job that stays as it is is on exactly one.
func TestPagesOfJobsNeitherLoseNorRepeat(t *testing.T) {
	w := start(t)
	underWay(t, w)
	whole := get[resource.Page[resource.Job]](w, jobsPath+"?limit=500").Items
	for _, limit := range []string{"1", "2", "3", "5", "7"} {
		items, _ := all[resource.Job](w, jobsPath, limit)
		assert.Equal(t, idsOf(whole, jobID), idsOf(items, jobID), "limit %s", limit)
	}

	other := w.Agent("other", "other.example.com", nil)
	restless := apitest.Valid(w.Now(), 5*day, "restless.example.com")
	seen := map[string]int{}
	states := []wire.State{wire.StateFailed, wire.StateRenewing, wire.StatePending, wire.StateValid}
	cursor := ""
	for page := 0; ; page++ {
		restless.State, restless.NeedsAttention = states[page%len(states)], ""
		if page%3 == 0 {
			restless.NeedsAttention = "look"
		}
		other.Report(fmt.Sprint("restless", page%2), restless)
		p := get[resource.Page[resource.Job]](w, jobsPath+"?limit=2&cursor="+cursor)
		for _, j := range p.Items {
			seen[jobID(j)]++
		}
		require.Less(t, page, 100, "a list without an end")
		if cursor = p.NextCursor; cursor == "" {
			break
		}
	}
	for _, j := range whole {
		assert.Equal(t, 1, seen[jobID(j)], jobID(j))
	}
}
