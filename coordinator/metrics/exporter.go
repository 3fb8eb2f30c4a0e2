package metrics

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"

	"github.com/certctl/certctl/coordinator/agentapi"
	"github.com/certctl/certctl/coordinator/backup"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/coordinator/orders"
	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/shared/buildinfo"
)

// maxScrapes is how many scrapes are answered at the same time.
const maxScrapes = 4

// Node is the node that is reported on; *cluster.Node is one.
type Node interface {
	State() *fleet.State
	Ready() cluster.Readiness
	Status() cluster.Status
	Members() (members []cluster.Member, configurationIndex uint64)
}

// Journal is where the facts are; *history.Journal is one.
type Journal interface {
	Status() (history.Status, error)
}

// Presence knows when agents were last heard of; *agentapi.Service is one.
type Presence interface {
	LastSeen(agentID string) (time.Time, bool)
}

// Orders is what works on orders at authorities; *orders.Engine is one.
type Orders interface {
	Status() []orders.IssuerStatus
	Counts() []orders.CallCount
}

// Config of an Exporter. Those up to Log are required; a part of the coordinator
// that there is not has no metrics.
type Config struct {
	Node     Node
	Journal  Journal
	Presence Presence
	// CutOff says whether an agent that was last heard of at a time is cut off.
	CutOff func(seen, now time.Time) bool
	Log    *slog.Logger

	// Peers are the connections to other nodes, and Certificate the end of the
	// certificate that is shown to them.
	Peers       func() peer.Stats
	Certificate func() time.Time
	// Agents is what became of the agents' requests.
	Agents func() agentapi.Counts
	// Backups is how the node's own snapshot files stand.
	Backups func() backup.Status
	// Orders is what works on orders at authorities.
	Orders Orders
	// Database is how the export to the database stands.
	Database func() postgres.Status
	// DataDir is where the room on the disk matters.
	DataDir string

	Now func() time.Time // nil is time.Now
	// Keep is how long a count of the fleet is good that took so long; nil limits
	// what counting costs.
	Keep func(took time.Duration) time.Duration
}

// Exporter makes the metrics of one node.
type Exporter struct {
	cfg      Config
	descs    map[*Family]*prometheus.Desc
	counting counting
	handler  http.Handler
	gatherer prometheus.Gatherer

	requests  *prometheus.CounterVec
	refusals  *prometheus.CounterVec
	durations *prometheus.HistogramVec
}

// New checks the configuration.
func New(c Config) (*Exporter, error) {
	if c.Node == nil || c.Journal == nil || c.Presence == nil || c.CutOff == nil || c.Log == nil {
		return nil, errors.New("metrics: one of Node, Journal, Presence, CutOff and Log is missing")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Keep == nil {
		c.Keep = keepFor
	}
	e := &Exporter{
		cfg: c, descs: descriptions(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: requests.Name, Help: requests.Help}, requests.Labels),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: refusals.Name, Help: refusals.Help}, refusals.Labels),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: durations.Name, Help: durations.Help,
			// A sync is a few milliseconds; the longest patience is half a minute.
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 30},
		}, durations.Labels),
	}
	registry := prometheus.NewPedanticRegistry()
	for _, collector := range []prometheus.Collector{
		e.requests, e.refusals, e.durations, collector{e}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(collector); err != nil {
			return nil, errors.Join(errors.New("metrics: two families have one name"), err)
		}
	}
	e.gatherer = registry
	for _, reason := range []string{"rate", "address", "unauthorized", "role", "scope"} { // there from the start
		e.refusals.WithLabelValues(reason)
	}
	e.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: maxScrapes,
		ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelError),
	})
	return e, nil
}

// ServeHTTP answers a scrape. Who may scrape is for the caller to say.
func (e *Exporter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return
	}
	e.handler.ServeHTTP(w, r)
}

// Text writes what a scrape is answered, for a person to read later.
func (e *Exporter) Text(w io.Writer) error {
	families, err := e.gatherer.Gather() // what could be had is there in any case
	if err != nil {
		err = fmt.Errorf("gather the metrics: %w", err)
	}
	for _, family := range families {
		if _, failure := expfmt.MetricFamilyToText(w, family); failure != nil {
			return errors.Join(err, fmt.Errorf("write the metrics: %w", failure))
		}
	}
	return err
}

// Observe counts a request that was answered. Kind is one of a fixed set.
func (e *Exporter) Observe(kind string, status int, took time.Duration) {
	e.requests.WithLabelValues(kind, strconv.Itoa(status)).Inc()
	e.durations.WithLabelValues(kind).Observe(took.Seconds())
}

// RefuseAPI counts a request to the API that was refused for who sent it. Reason is one
// of a fixed set.
func (e *Exporter) RefuseAPI(reason string) { e.refusals.WithLabelValues(reason).Inc() }

// collector makes the other families at each scrape.
type collector struct{ *Exporter }

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range c.descs {
		out <- desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	send := func(f *Family, value float64, labels ...string) {
		kind := prometheus.GaugeValue
		if f.Kind == counter {
			kind = prometheus.CounterValue
		}
		out <- prometheus.MustNewConstMetric(c.descs[f], kind, value, labels...)
	}
	build := buildinfo.Get()
	send(buildInfo, 1, build.Version, build.Commit, build.GoVersion, build.Platform)
	status := c.cfg.Node.Status()
	c.node(send, &status)
	c.raft(out, send, &status)
	c.parts(send)
	send(journalLag, float64(status.Journal.Entries))
	send(journalLagTime, status.Journal.Since.Seconds())
	if err := c.journal(send); err != nil {
		out <- prometheus.NewInvalidMetric(c.descs[journalBytes], err)
	}
	c.fleet(send)
}

type send func(f *Family, value float64, labels ...string)

func (c collector) node(send send, status *cluster.Status) {
	readiness := c.cfg.Node.Ready()
	send(ready, truth(readiness.Ready()))
	send(raftLeader, truth(status.Leader))
	send(raftLeaderKnown, truth(readiness.LeaderKnown))
	send(raftTerm, float64(status.Term))
	send(raftCommit, float64(status.CommitIndex))
	send(raftApplied, float64(status.AppliedIndex))
	send(raftLast, float64(status.LastIndex))
	send(raftSnapshot, float64(status.SnapshotIndex))
	if !status.LastContact.IsZero() {
		send(raftContact, seconds(status.LastContact))
	}
	view := c.cfg.Node.State().View()
	for _, table := range fleet.Tables() {
		send(tableRows, float64(view.Rows(table)), string(table))
	}
	send(auditHead, float64(view.AuditFacts()))
	if at, ok := view.SafeUntil(c.cfg.Now()); ok {
		send(fleetSafe, seconds(at))
	}
}

func (c collector) journal(send send) error {
	status, err := c.cfg.Journal.Status()
	if err != nil {
		return err
	}
	send(journalFacts, float64(status.Facts), "routine")
	send(journalFacts, float64(status.AuditFacts), "audit")
	send(journalBytes, float64(status.Bytes))
	send(journalLimit, float64(status.MaxBytes))
	send(journalDropped, float64(status.Dropped))
	send(journalMissing, float64(status.Gaps.Count()))
	return nil
}

func (c collector) fleet(send send) {
	n := c.counting.get(c.count, c.cfg.Keep)
	send(fleetCounted, seconds(n.at))
	send(fleetAgents, float64(n.connected), "connected")
	send(fleetAgents, float64(n.cutOff), "cut_off")
	send(fleetAgents, float64(n.retired), "retired")
	for i, days := range horizonDays {
		send(fleetUnsafe, float64(n.unsafe[i]), strconv.Itoa(days))
	}
	send(fleetNotSafe, float64(n.notSafe))
	send(fleetNotSafeCerts, float64(n.notSafeCertificates))
	send(fleetUnserving, float64(n.unserving))
	send(fleetAtRisk, float64(n.atRisk))
	send(fleetWarned, float64(n.warned))
	for _, state := range certificateStates {
		send(fleetCerts, float64(n.certificates[state]), string(state))
	}
	send(fleetAttention, float64(n.attention))
	send(fleetExpired, float64(n.expired))
	for _, state := range orderStates {
		send(fleetOrders, float64(n.orders[state]), string(state))
	}
	c.authorities(send, n)
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// seconds are since the Unix epoch. Dates reach further than nanoseconds do.
func seconds(at time.Time) float64 {
	return float64(at.Unix()) + float64(at.Nanosecond())/1e9
}
