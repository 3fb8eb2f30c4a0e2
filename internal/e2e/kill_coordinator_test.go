//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/internal/counts"
)

// The coordinator is killed again and again while hosts enrol, sync and order
// and an operator makes tokens. What it has acknowledged is never lost, nothing
// is issued twice, and in the end everybody agrees.
func TestKillCoordinator(t *testing.T) {
	t.Parallel()
	const hosts, perHost = 3, 5
	kills := times(12, 150)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	c := startCoordinator(t)
	var agents []*agent
	var tokens []string
	for i := range hosts {
		var certificates []section
		for j := range perHost {
			certificates = append(certificates, certificate(
				fmt.Sprintf("c%d", j), "coordinator", fmt.Sprintf("c%d.host%d.example", j, i)))
		}
		agents = append(agents, newAgent(t, fmt.Sprintf("host %d", i), section{"certificates": certificates}))
		tokens = append(tokens, c.newToken(fmt.Sprintf("*.host%d.example", i)).Token)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	operator := makeTokens(ctx, c)
	var enrolling sync.WaitGroup
	for i, a := range agents {
		enrolling.Go(func() {
			// The same token is used again until an answer arrives.
			await(t, 5*time.Minute, a.name+" enrols", func() error {
				r := a.enrollWith(c.url(), tokens[i])
				if r.status != 0 {
					return errors.New(r.stderr)
				}
				a.enrolled(r)
				return nil
			})
			a.start()
		})
	}
	for kill := range kills {
		life, end := context.WithTimeout(ctx, time.Duration(50+random.IntN(1500))*time.Millisecond)
		if kill > kills/2 {
			forceRenewal(life, agents[random.IntN(hosts)], fmt.Sprintf("c%d", random.IntN(perHost)))
		}
		<-life.Done()
		end()
		require.True(t, c.running(), "the coordinator ended by itself")
		c.kill()
		c.start()
	}
	c.awaitServing()
	enrolling.Wait()
	require.False(t, t.Failed(), "every host has enrolled")
	cancel()
	acknowledged := operator.wait()

	for _, a := range agents {
		await(t, 3*time.Minute, a.name+" and the report agree", func() error { return agree(c, a, perHost) })
		require.NoError(t, eventsInOrder(c, a))
	}
	t.Logf("%d kills, %d tokens acknowledged", kills, len(acknowledged))
	assert.NotEmpty(t, acknowledged)
	stored := make(map[string]bool)
	for _, token := range c.enrollmentTokens() {
		stored[token.ID] = true
	}
	for _, id := range acknowledged {
		assert.Truef(t, stored[id], "the acknowledged token %s is lost", id)
	}

	known := make(map[string]bool)
	for _, agent := range c.agents() {
		known[agent.ID] = true
		assert.Equal(t, "active", agent.State)
	}
	assert.Len(t, known, hosts, "a repeated enrolment makes no second agent")
	for _, a := range agents {
		assert.True(t, known[a.id], "%s is lost", a.name)
	}
	twice := ordersOnce(t, c.facts(""))
	lost := 0
	for _, id := range acknowledged {
		if !stored[id] {
			lost++
		}
	}
	counts.Report(t, "coordinator-kills", kills, "kill -9 of the real coordinator while hosts enrolled, ordered and synced, each survived")
	counts.Report(t, "coordinator-kills-lost-writes", lost, fmt.Sprintf("of %d tokens whose making was acknowledged", len(acknowledged)))
	counts.Report(t, "coordinator-kills-duplicate-orders", twice, "orders that were placed twice or have not exactly one certificate")
}

// agree checks that an agent has come to rest, that the report is what the
// agent says, and that the CA issued no more than the agent has put into
// service.
func agree(c *coordinator, a *agent, certificates int) error {
	status, err := a.tryStatus()
	if err != nil {
		return err
	}
	if err := settled(status); err != nil {
		return err
	}
	rows, err := c.report(a.id)
	if err != nil {
		return err
	}
	if len(rows) != certificates || len(status.Certificates) != certificates {
		return fmt.Errorf("the agent has %d certificates, the report %d", len(status.Certificates), len(rows))
	}
	inService := 0
	for i := range status.Certificates {
		own := &status.Certificates[i]
		inService += int(own.Renewals)
		if row := rows[own.Name]; row.Serial != own.Serial || row.Health != resource.HealthOK {
			return fmt.Errorf("%s: the report has %s (%s), the agent %s", own.Name, row.Serial, row.Health, own.Serial)
		}
	}
	if issued := len(issuedByCoordinator(c, a)); issued != inService {
		return fmt.Errorf("the CA issued %d certificates, %d were put into service", issued, inService)
	}
	return nil
}

// ordersOnce checks that every order was placed once and has one certificate,
// and that the audit trail has no hole. It returns how many orders are not so.
func ordersOnce(t *testing.T, facts []resource.Event) (wrong int) {
	t.Helper()
	requested, issued := make(map[string]int), make(map[string]int)
	var audit uint64
	for _, fact := range facts {
		switch fact.Kind {
		case "order.requested":
			requested[fact.Object]++
		case "order.issued":
			issued[fact.Object]++
		case "order.rejected":
			assert.Failf(t, "rejected", "order %s: %s", fact.Object, fact.Detail)
		}
		if fact.Audit != 0 {
			assert.Equal(t, audit+1, fact.Audit, "the audit trail")
			audit = fact.Audit
		}
	}
	assert.NotEmpty(t, issued)
	for order, n := range requested {
		once := assert.Equalf(t, 1, n, "order %s was placed %d times", order, n)
		if !assert.Equalf(t, 1, issued[order], "order %s has %d certificates", order, issued[order]) || !once {
			wrong++
		}
	}
	assert.Len(t, issued, len(requested))
	return wrong
}

// tokenMaker is an operator who makes tokens and writes down those that the
// coordinator has acknowledged.
type tokenMaker struct {
	done         sync.WaitGroup
	acknowledged []string
}

func makeTokens(ctx context.Context, c *coordinator) *tokenMaker {
	m := new(tokenMaker)
	m.done.Go(func() {
		for ctx.Err() == nil {
			made, err := c.tryToken(resource.CreateEnrollmentToken{Description: "acknowledged", TTLSeconds: 600})
			if err == nil {
				m.acknowledged = append(m.acknowledged, made.ID)
			}
			pause(ctx, 20*time.Millisecond)
		}
	})
	return m
}

func (m *tokenMaker) wait() []string {
	m.done.Wait()
	return m.acknowledged
}
