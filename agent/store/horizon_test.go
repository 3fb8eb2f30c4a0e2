package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/shared/wire"
)

// The offline horizon of a certificate goes by what is served, place by place.
func TestHorizon(t *testing.T) {
	const day = 24 * time.Hour
	at := func(days int) time.Time { return epoch.Add(time.Duration(days) * day) }
	pair := func(number uint64, expires int) *Generation {
		return &Generation{Number: number, Fingerprint: string(rune('a' + number)), NotAfter: at(expires)}
	}
	older, current, next := pair(1, 10), pair(2, 40), pair(3, 90)
	serves := func(g *Generation) Deployment {
		return Deployment{Generation: g.Number, Outcome: wire.DeploymentVerified, Fingerprint: g.Fingerprint, NotAfter: g.NotAfter}
	}
	failed := func(g *Generation) Deployment {
		d := serves(g)
		d.Outcome, d.Attempt = wire.DeploymentFailed, 2
		return d
	}
	broken := Deployment{Generation: 2, Outcome: wire.DeploymentBroken}
	places := func(list ...Deployment) map[string]Deployment {
		all := make(map[string]Deployment)
		for i, d := range list {
			all[string(rune('a'+i))] = d
		}
		return all
	}
	unknown := serves(older)
	unknown.NotAfter, unknown.Fingerprint = time.Time{}, "?"
	recorded := serves(older)
	recorded.NotAfter = time.Time{}
	lost := *current
	lost.Revoked = &Revocation{At: at(-3), Reason: 1}
	servesLost := serves(current)
	servesLost.RevokedAt = at(-3)
	abandoned := failed(next)
	abandoned.RevokedAt = at(-2)

	for name, c := range map[string]struct {
		record Certificate
		// want is the horizon of the certificate, host what it adds to the host's;
		// days from now, 0 for none.
		want, host int
	}{
		"nothing yet":                       {Certificate{}, 0, 0},
		"nothing yet, a place waits":        {Certificate{Deployments: places(Deployment{})}, 0, 0},
		"no places":                         {Certificate{Current: current}, 40, 40},
		"no places, a new pair":             {Certificate{Current: current, Next: next, Phase: PhaseIssued}, 90, 90},
		"no places, an order under way":     {Certificate{Current: current, Next: &Generation{Number: 3}, Phase: PhaseOrderPlaced}, 40, 40},
		"every place serves it":             {Certificate{Current: current, Deployments: places(serves(current), serves(current))}, 40, 40},
		"a place is not served":             {Certificate{Current: current, Deployments: places(serves(current), Deployment{})}, 0, 40},
		"a place is broken":                 {Certificate{Current: current, Deployments: places(broken)}, 0, 40},
		"a place refused it":                {Certificate{Current: current, Deployments: places(serves(current), failed(older))}, 10, 10},
		"a place has yet to get it":         {Certificate{Current: current, Deployments: places(serves(current), serves(older))}, 40, 40},
		"a new pair waits to be deployed":   {Certificate{Current: current, Next: next, Phase: PhaseIssued, Deployments: places(serves(next), serves(current))}, 90, 90},
		"a new pair was refused":            {Certificate{Current: current, Next: next, Phase: PhaseIssued, Deployments: places(serves(next), failed(current))}, 40, 40},
		"a pair that only the place has":    {Certificate{Current: current, Deployments: places(failed(older))}, 10, 10},
		"a newer pair that was abandoned":   {Certificate{Current: current, Deployments: places(serves(next), serves(current))}, 40, 40},
		"expiry not recorded, pair known":   {Certificate{Current: current, Previous: older, Deployments: places(failedOf(recorded))}, 10, 10},
		"expiry not recorded, pair unknown": {Certificate{Current: current, Deployments: places(unknown)}, 0, 40},
		"first pair at one place of two":    {Certificate{Next: current, Phase: PhaseIssued, Deployments: places(serves(current), Deployment{})}, 0, 40},
		"revoked":                           {Certificate{Current: &lost, Deployments: places(servesLost, servesLost)}, -3, -3},
		"revoked, no places":                {Certificate{Current: &lost}, -3, -3},
		"revoked, its expiry not recorded":  {Certificate{Current: &lost, Deployments: places(failedOf(Deployment{Generation: 2, Fingerprint: lost.Fingerprint}))}, -3, -3},
		"revoked, a new pair waits":         {Certificate{Current: &lost, Next: next, Phase: PhaseIssued, Deployments: places(serves(next), servesLost)}, 90, 90},
		"revoked and known to a place only": {Certificate{Current: current, Deployments: places(serves(current), abandoned)}, -2, -2},
	} {
		moment := func(days int) time.Time {
			if days == 0 {
				return time.Time{}
			}
			return at(days)
		}
		assert.Equal(t, moment(c.want), c.record.Horizon(), name)
		assert.Equal(t, moment(c.want), c.record.Summary().SafeUntil, name)
		assert.Equal(t, moment(c.host), c.record.serviceEnd(), "%s: host", name)
	}
}

func failedOf(d Deployment) Deployment {
	d.Outcome = wire.DeploymentFailed
	return d
}
