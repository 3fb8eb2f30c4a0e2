package renewal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/pki"
)

// reloads is a host whose configuration changes all the time, also in the middle
// of steps. One certificate is worked on at a time, so that it is certain what
// was configured when a step began.
type reloads struct {
	*world
	acts   *rand.Rand
	places map[string]*place  // by certificate and deployment
	wanted map[string]Managed // configured now
	names  map[string]string  // by certificate, as it was configured last
	wishes map[string]int     // how many certificates it may have been ordered for
	orders map[string]map[string]bool
	steps  int // that are left until everything is to converge
	puts   int
}

var (
	reloadNames = []string{"a", "b", "c"}
	reloadIDs   = []string{"front", "back"}
)

// draw makes a configuration: some certificates, with one of two names, and some
// of two deployments that are configured in one of two ways.
func (r *reloads) draw() []Managed {
	var list []Managed
	for _, name := range reloadNames {
		if r.acts.IntN(3) == 0 {
			continue
		}
		list = append(list, r.certificate(name, r.acts.IntN(5) == 0, func(string) (string, bool) {
			return []string{"here", "there"}[r.acts.IntN(2)], r.acts.IntN(4) > 0
		}))
	}
	return list
}

func (r *reloads) certificate(name string, other bool, at func(id string) (config string, wanted bool)) Managed {
	dns := name + ".example.com"
	if other {
		dns = "other." + dns
	}
	m := Managed{
		Name: name, Names: pki.MustParseNames(dns), KeyAlgorithm: pki.ECDSAP256,
		Issuers: []NamedIssuer{{Name: "ca", Issuer: r.ca}},
	}
	for _, id := range reloadIDs {
		if config, wanted := at(id); wanted {
			m.Deployments = append(m.Deployments, Deployment{ID: id, Config: config, Target: r.target(name, id, config)})
		}
	}
	return m
}

// watched is a place that is only to be given what is configured.
type watched struct {
	*place
	r            *reloads
	name, config string
}

func (w watched) Deploy(ctx context.Context, task *deploy.Task) (*deploy.Report, error) {
	m, managed := w.r.wanted[w.name]
	at := slices.IndexFunc(m.Deployments, func(d Deployment) bool { return d.ID == w.id })
	if !managed || at < 0 || m.Deployments[at].Config != w.config {
		w.r.world.t.Errorf("%s is deployed at %s (%s), which is not configured", w.name, w.id, w.config)
	}
	if want := m.Names.DNS; managed && !slices.Equal(want, task.Chain[0].DNSNames) && task.State == nil && w.r.names[w.name] != "" {
		w.r.stale(task)
	}
	return w.place.Deploy(ctx, task)
}

// stale allows the pair in service to be repaired while the one for other names
// is being obtained, and nothing else.
func (r *reloads) stale(task *deploy.Task) {
	rec, found, err := r.store.Certificate(task.Certificate)
	require.NoError(r.world.t, err)
	if !found || rec.Current == nil || rec.Current.Number != task.Generation {
		r.world.t.Errorf("%s is deployed with names that are not configured", task.Certificate)
	}
}

func (r *reloads) target(name, id, config string) deploy.Target {
	key := name + " " + id + " " + config
	if r.places[key] == nil {
		p := &place{t: r.world.t, id: id, point: func(string) { r.interrupt() }}
		r.places[key] = p
	}
	return watched{place: r.places[key], r: r, name: name, config: config}
}

// put puts a configuration into effect.
func (r *reloads) put(list []Managed) {
	r.wanted = map[string]Managed{}
	for _, m := range list {
		r.wanted[m.Name] = m
		if dns := m.Names.DNS[0]; r.names[m.Name] != dns {
			r.names[m.Name] = dns
			r.wishes[m.Name]++
		}
	}
	r.puts++
	_, err := r.e.Reconfigure(list)
	require.NoError(r.world.t, err)
}

// interrupt puts another configuration into effect now and then.
func (r *reloads) interrupt() {
	if r.steps > 0 && r.acts.IntN(6) == 0 {
		r.steps--
		r.put(r.draw())
	}
}

func (r *reloads) issue(_ context.Context, order *issuer.Order) error {
	if r.orders[order.Certificate] == nil {
		r.orders[order.Certificate] = map[string]bool{}
	}
	r.orders[order.Certificate][order.ID] = true
	r.interrupt()
	if r.steps > 0 && r.acts.IntN(4) == 0 {
		return errors.New("no route to host")
	}
	return nil
}

// A host is reloaded at random, also in the middle of orders and deployments, and
// restarted. No order has two certificates, none is opened but for a certificate
// that was wanted, nothing that is not configured is deployed, and in the end
// everything that is configured is in service.
func TestReloadsAtRandom(t *testing.T) {
	reloaded := 0
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(t)
			r := &reloads{
				world: w, acts: rand.New(rand.NewPCG(seed, 1)), places: map[string]*place{}, wanted: map[string]Managed{},
				names: map[string]string{}, wishes: map[string]int{}, orders: map[string]map[string]bool{}, steps: 12,
			}
			w.ca.interfere(r.issue)
			w.tune = func(c *Config) {
				keepForAMonth(c)
				c.Concurrency = 1
				c.Managed = slices.Collect(maps.Values(r.wanted))
			}
			w.open()
			for r.steps > 0 {
				switch r.acts.IntN(8) {
				case 0:
					w.reopen()
				case 1, 2:
					r.steps--
					r.put(r.draw())
				default:
					w.clock.advance(time.Duration(r.acts.IntN(300)) * time.Second)
					w.tick()
				}
			}
			r.requireConvergence()
			reloaded += r.puts
		})
	}
	counts.Report(t, "reloads", reloaded, "random reloads of an engine, also in the middle of steps, after which everything was in service")
}

// requireConvergence configures everything and waits for it.
func (r *reloads) requireConvergence() {
	r.put(r.list(func(string) (string, bool) { return "here", true }))
	r.run(3*time.Hour, 5*time.Minute)
	for _, name := range reloadNames {
		rec, found, err := r.store.Certificate(name)
		require.NoError(r.world.t, err)
		require.True(r.world.t, found)
		require.NotNil(r.world.t, rec.Current, name)
		leaf := leafOf(rec.Current)
		require.Equal(r.world.t, []string{name + ".example.com"}, leaf.DNSNames)
		for _, id := range reloadIDs {
			require.NoError(r.world.t, r.places[name+" "+id+" here"].Verify(r.world.t.Context(), leaf), "%s at %s", name, id)
		}
		require.LessOrEqual(r.world.t, len(r.orders[name]), r.wishes[name], "orders for %s", name)
	}
	require.Empty(r.world.t, r.removed())
}

func (r *reloads) list(at func(id string) (string, bool)) (list []Managed) {
	for _, name := range reloadNames {
		list = append(list, r.certificate(name, false, at))
	}
	return list
}
