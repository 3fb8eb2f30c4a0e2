package renewal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

var errReload = &deploy.Error{Stage: deploy.StageReload, RolledBack: true, Mend: "look at its log", Err: errors.New("exit status 1")}

func TestDeploymentFailsAndRecoversWithoutAnotherOrder(t *testing.T) {
	w := newWorld(t)
	w.open()
	before := w.settleDown()
	front, back := w.places[0], w.places[1]
	back.failWith(func(context.Context, *deploy.Task) error { return errReload })
	w.toRenewal()
	w.tick()

	rec := w.record()
	require.Equal(t, store.PhaseIssued, rec.Phase)
	assert.Equal(t, before.Current.Fingerprint, rec.Current.Fingerprint, "the old pair stays current")
	assert.Equal(t, wire.DeploymentVerified, rec.Deployments["front"].Outcome)
	assert.Equal(t, wire.DeploymentFailed, rec.Deployments["back"].Outcome)
	assert.Equal(t, before.Current.Fingerprint, rec.Deployments["back"].Fingerprint)
	assert.Contains(t, rec.NeedsAttention, "look at its log")
	assert.Equal(t, before.Current.Fingerprint, back.served)
	assert.Equal(t, rec.Next.Fingerprint, front.served)
	_, err := w.keys.Load(before.Current.KeyID)
	require.NoError(t, err, "the key in service must stay")

	told := w.events(wire.EventFailed)
	require.Len(t, told, 1)
	assert.Equal(t, "ca", told[0].Issuer)
	assert.Equal(t, wire.ReasonDeployment, told[0].Reason)

	deploys, _ := front.counts()
	tries, _ := back.counts()
	w.tick()
	again, _ := back.counts()
	assert.Equal(t, tries, again, "tried again without a pause")
	w.run(3*time.Hour, time.Minute)
	again, _ = back.counts()
	assert.InDelta(t, tries+6, again, 2, "attempts in three hours")
	assert.Equal(t, again-tries+1, w.record().Attempt)

	back.failWith(nil)
	w.requireServed(2)
	after, _ := front.counts()
	assert.Equal(t, deploys, after, "a deployment that worked was done again")
}

func TestRollbackThatFailedIsFinishedWithItsState(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	back := w.places[1]
	var states []string
	back.failWith(func(_ context.Context, task *deploy.Task) error {
		states = append(states, string(task.State))
		return &deploy.Error{Stage: deploy.StageVerify, RollbackErr: errors.New("read-only"), Err: errors.New("serves another")}
	})
	w.toRenewal()
	w.tick()
	rec := w.record()
	assert.Equal(t, wire.DeploymentBroken, rec.Deployments["back"].Outcome)
	assert.Empty(t, rec.Deployments["back"].Fingerprint, "nobody knows what is served there")
	assert.NotEmpty(t, rec.Deployments["back"].State)
	w.clock.set(rec.NextAction)
	w.tick()
	require.Len(t, states, 2)
	assert.Empty(t, states[0])
	assert.NotEmpty(t, states[1], "the next attempt must know what to go back to")
	back.failWith(nil)
	w.requireServed(2)
}

func TestTargetThatPanicsOrSaysNothing(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.places[0].failWith(func(context.Context, *deploy.Task) error { panic("of a target") })
	w.toRenewal()
	w.tick()
	rec := w.record()
	assert.Equal(t, wire.DeploymentBroken, rec.Deployments["front"].Outcome)
	assert.Contains(t, rec.NeedsAttention, "panicked: of a target")
	assert.Equal(t, wire.DeploymentVerified, rec.Deployments["back"].Outcome)
	w.places[0].failWith(nil)
	w.requireServed(2)
}

func TestPairThatBecomesTooOldIsAbandoned(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.places[1].failWith(func(context.Context, *deploy.Task) error { return errReload })
	w.toRenewal()
	w.run(100*day, 12*time.Hour)
	rec := w.record()
	assert.InDelta(t, 3, w.ca.issuedCount(), 1, "one certificate for each lifetime, not one for each failure")
	assert.Contains(t, rec.NeedsAttention, "back")
	assert.Equal(t, rec.Next.Fingerprint, w.places[0].served, "the place that works is kept up to date")

	w.places[1].failWith(nil)
	rec = w.settleDown()
	assert.Equal(t, rec.Current.Fingerprint, w.places[1].served)
}

func TestEveryStartVerifiesAndPutsBackWhatIsNotServed(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.reopen()
	w.clock.advance(time.Minute)
	w.tick()
	deploys, _ := w.places[0].counts()
	require.Equal(t, 1, deploys, "verification alone deploys nothing")

	w.places[1].set(func() {
		w.places[1].served, w.places[1].certFile, w.places[1].keyFile = "another", "another", "another"
	})
	w.reopen()
	w.clock.advance(time.Minute)
	w.tick()
	assert.Equal(t, w.record().Current.Fingerprint, w.places[1].served)
	deploys, _ = w.places[0].counts()
	assert.Equal(t, 1, deploys)
	told := w.events(wire.EventFailed)
	require.Len(t, told, 1)
	assert.Equal(t, "ca", told[0].Issuer)
	assert.Equal(t, wire.ReasonNotInService, told[0].Reason)
	w.requireServed(1)
}

func TestRunningEngineVerifiesOnceADay(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.places[0].set(func() { w.places[0].served = "another" })
	w.places[0].failWith(func(context.Context, *deploy.Task) error { return errReload })
	w.run(28*time.Hour, 10*time.Minute)
	rec := w.record()
	assert.Equal(t, wire.DeploymentFailed, rec.Deployments["front"].Outcome)
	assert.Equal(t, wire.StateFailed, rec.Summary().State, "what nobody serves is not valid")
	assert.NotEmpty(t, rec.NeedsAttention)
	w.places[0].failWith(nil)
	w.clock.advance(6 * time.Hour)
	w.requireServed(1)
}

func TestNewDeploymentGetsTheCurrentPairAndARemovedOneIsForgotten(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	w.close()
	gone := w.e.scratch("web", "front")
	_, err := os.Stat(gone)
	require.NoError(t, err)
	w.places = []*place{w.places[1], {t: t, id: "new"}}
	w.open()
	w.requireServed(1)
	assert.NotContains(t, w.record().Deployments, "front")
	_, err = os.Stat(gone)
	assert.ErrorIs(t, err, os.ErrNotExist, "its snapshots hold keys")
}

func TestCurrentKeyIsLost(t *testing.T) {
	w := newWorld(t)
	w.open()
	rec := w.settleDown()
	require.NoError(t, w.keys.Keys.Remove(rec.Current.KeyID))
	w.places[0].set(func() { w.places[0].served = "another" })
	w.reopen()
	w.clock.advance(time.Minute)
	w.tick()
	rec = w.record()
	assert.Contains(t, rec.NeedsAttention, "certctl-agent renew web")
	assert.Equal(t, 1, w.ca.orders())
	require.NoError(t, w.e.Renew(t.Context(), "web"))
	w.requireServed(2)
}

func TestKeyOfAnotherCertificateIsNeverDeployed(t *testing.T) {
	w := newWorld(t)
	w.open()
	rec := w.settleDown()
	other, _, err := w.keys.Keys.Create(rec.Current.KeyAlgorithm)
	require.NoError(t, err)
	file := func(id string) string {
		paths, err := filepath.Glob(filepath.Join(w.dir, "keys", id+"*"))
		require.NoError(t, err)
		require.Len(t, paths, 1)
		return paths[0]
	}
	require.NoError(t, os.Rename(file(other), file(rec.Current.KeyID)))
	w.places[0].set(func() { w.places[0].served = "another" })
	deploys, _ := w.places[0].counts()
	w.reopen()
	w.clock.advance(time.Minute)
	w.tick()
	assert.Contains(t, w.record().NeedsAttention, pki.ErrKeyMismatch.Error())
	after, _ := w.places[0].counts()
	assert.Equal(t, deploys, after, "the target must not see the pair")
}

func TestStateOfAnOlderPairIsNotGivenToANewerOne(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.settleDown()
	var broken *deploy.Task
	w.places[0].set(func() { w.places[0].served = "another" })
	w.places[0].failWith(func(_ context.Context, task *deploy.Task) error {
		broken = task
		return &deploy.Error{Stage: deploy.StageReload, Err: errors.New("exit status 1")}
	})
	w.reopen()
	w.clock.advance(time.Minute)
	w.tick()
	require.NotNil(t, broken)
	require.NotEmpty(t, w.record().Deployments["front"].State)

	var given []string
	w.places[0].failWith(func(_ context.Context, task *deploy.Task) error {
		if task.Generation == 2 {
			given = append(given, string(task.State))
			return nil
		}
		// The older pair's open transaction is tried first, and stays open.
		return &deploy.Error{Stage: deploy.StageReload, Err: errors.New("exit status 1")}
	})
	require.NoError(t, w.e.Renew(t.Context(), "web"))
	w.tick()
	require.Equal(t, []string{""}, given)
	w.requireServed(2)
}

// slow is a target whose own time limits add up to more than the engine's.
type slow struct{ *place }

func (slow) TimeLimit() time.Duration { return 20 * time.Minute }

func TestTargetThatMayTakeLongerIsNotEndedEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.clock.set(time.Now())
		w.places[0].failWith(func(ctx context.Context, _ *deploy.Task) error {
			select {
			case <-time.After(15 * time.Minute):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		w.tune = func(c *Config) { c.Managed[0].Deployments[0].Target = slow{w.places[0]} }
		w.open()
		w.tick()
		assert.EqualValues(t, 1, w.record().Renewals)
		assert.Empty(t, w.record().LastError)
		w.close()
	})
}
