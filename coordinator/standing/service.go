package standing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/shared/logring"
)

// Node is the node that reports; *cluster.Node is one.
type Node interface {
	State() *fleet.State
	Ready() cluster.Readiness
	Status() cluster.Status
	Leader() (id, address string)
	Members() (members []cluster.Member, configurationIndex uint64)
}

// Journal is where the facts are; *history.Journal is one.
type Journal interface {
	Status() (history.Status, error)
}

// Peers are the connections to the other nodes; *peer.Network is one.
type Peers interface {
	// Transport reaches the node with an id, at an address, whatever the host in
	// a request's URL.
	Transport(id, address string) http.RoundTripper
}

// Config of a Service. NodeID, DataDir, Node, Journal and Log are required.
type Config struct {
	NodeID  string
	DataDir string
	Node    Node
	Journal Journal
	Peers   Peers // nil: there are no other nodes
	Log     *slog.Logger

	// Settings is the configuration that is in effect, without secrets.
	Settings func() ([]byte, error)
	// Metrics writes what a scrape would be answered.
	Metrics func(w io.Writer) error
	// Recent holds the newest lines of the log.
	Recent *logring.Ring
	// CertificateNotAfter is the end of the certificate that the node shows to the
	// others.
	CertificateNotAfter func() time.Time
	// Backups lists the snapshots that the node writes by itself, newest first, and
	// says why the last one failed.
	Backups func() ([]SnapshotFile, error)
	// Database is how the export to the database stands; nil: none is configured.
	Database func() postgres.Status
	Now      func() time.Time // nil is time.Now
}

// Service reports on a node and gathers what the others report. It is safe for
// concurrent use.
type Service struct {
	cfg     Config
	started time.Time // by the clock of the configuration
	began   time.Time // for lengths of time
}

// New checks the configuration.
func New(c Config) (*Service, error) {
	if c.NodeID == "" || c.DataDir == "" || c.Node == nil || c.Journal == nil || c.Log == nil {
		return nil, errors.New("standing: one of NodeID, DataDir, Node, Journal and Log is missing")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{cfg: c, started: c.Now().UTC(), began: time.Now()}, nil
}

// Paths that a node answers to the others, below Prefix.
const (
	Prefix     = "/standing/"
	reportPath = Prefix + "report"
	bundlePath = Prefix + "bundle"
)

// Bounds of what is asked of another node.
const (
	reportPatience = 3 * time.Second
	maxReport      = 256 << 10
)

// Handler answers the other nodes. Only they may reach it.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+reportPath, func(w http.ResponseWriter, _ *http.Request) {
		encoded, err := json.Marshal(s.Local())
		if err != nil {
			s.cfg.Log.Error("this node's report cannot be encoded", "err", err)
			http.Error(w, "the report cannot be encoded", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(encoded) // the other node may be gone
	})
	mux.HandleFunc("GET "+bundlePath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-tar")
		if err := s.writePart(w); err != nil {
			s.cfg.Log.Warn("this node's part of a diagnosis broke off", "err", err)
			panic(http.ErrAbortHandler) // half of it is not passed off as whole
		}
	})
	return mux
}

// An Answer is what came of asking a member for its report.
type Answer struct {
	Member cluster.Member
	Report *Report // nil if there is none
	Err    error   // why not
	// Ahead is how far the member's clock is ahead of this node's, give or take
	// Uncertain, which is half of the time that the answer took.
	Ahead, Uncertain time.Duration
}

// Gather asks all members at the same time. A member that does not answer within
// some seconds has an error.
func (s *Service) Gather(ctx context.Context) (answers []Answer, configurationIndex uint64) {
	members, index := s.cfg.Node.Members()
	answers = make([]Answer, len(members))
	var asking sync.WaitGroup
	for i, member := range members {
		answers[i].Member = member
		if member.ID == s.cfg.NodeID {
			report := s.Local()
			answers[i].Report = &report
			continue
		}
		asking.Go(func() { s.askReport(ctx, &answers[i]) })
	}
	asking.Wait()
	return answers, index
}

func (s *Service) askReport(ctx context.Context, a *Answer) {
	ctx, cancel := context.WithTimeout(ctx, reportPatience)
	defer cancel()
	sent := s.cfg.Now()
	body, err := s.get(ctx, a.Member, reportPath, maxReport)
	if err != nil {
		a.Err = err
		return
	}
	took := s.cfg.Now().Sub(sent)
	report := new(Report)
	if err := json.Unmarshal(body, report); err != nil {
		a.Err = fmt.Errorf("its report cannot be read: %w", err)
		return
	}
	a.Report, a.Uncertain = report, took/2
	a.Ahead = report.Time.Sub(sent.Add(took / 2))
}

// get is a small document of another node.
func (s *Service) get(ctx context.Context, member cluster.Member, path string, most int64) ([]byte, error) {
	body, err := s.open(ctx, member, path)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("its answer broke off: %w", err)
	case int64(len(text)) > most:
		return nil, fmt.Errorf("its answer is larger than %d bytes", most)
	}
	return text, nil
}

func (s *Service) open(ctx context.Context, member cluster.Member, path string) (io.ReadCloser, error) {
	if s.cfg.Peers == nil {
		return nil, errors.New("this node has no connections to others")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+member.Address+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("its address cannot be used: %w", err)
	}
	response, err := s.cfg.Peers.Transport(member.ID, member.Address).RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close() // nothing of it is wanted
		return nil, fmt.Errorf("it answers %s", response.Status)
	}
	return response.Body, nil
}
