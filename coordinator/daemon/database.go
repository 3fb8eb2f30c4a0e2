package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/certctl/certctl/coordinator/api"
	"github.com/certctl/certctl/coordinator/history/postgres"
)

// openDatabase makes the export of the history, if a database is configured. Nothing
// connects before this node leads.
func (d *Daemon) openDatabase() (err error) {
	s := d.config.Settings.Database
	if !s.URL.IsSet() {
		return nil
	}
	d.database, err = postgres.New(postgres.Config{
		URL: s.URL, MaxConns: s.MaxConns, StatementTimeout: s.StatementTimeout, Retention: s.Retention,
		ClusterID: d.ca.ClusterID, Applied: d.node.AppliedIndex, Journal: d.directory.journal, Log: d.log.With("part", "database"),
	})
	if err != nil {
		return err
	}
	d.database.Lead(d.node)
	d.directory.journal.KeepUntil(d.exported)
	d.network.Handle(exportedPath, http.HandlerFunc(d.tellExported))
	return nil
}

// databaseStatus is how the export stands; nil without a database.
func (d *Daemon) databaseStatus() func() postgres.Status {
	if d.database == nil {
		return nil
	}
	return d.database.Status
}

// historyDatabase is what the API has of it. An interface that holds a nil would not be
// one.
func (d *Daemon) historyDatabase() api.Database {
	if d.database == nil {
		return nil
	}
	return d.database
}

// exportedPath is where the leader tells the other nodes how far the export has come.
const exportedPath = "/history/exported"

const (
	exportedPatience = 5 * time.Second
	maxExported      = 1 << 10
)

// errExportedUnknown says that it is not known what the database has.
var errExportedUnknown = errors.New("what the database has is not known")

type exportedAnswer struct {
	Through uint64 `json:"through"`
}

// exported is up to which log index the database has the facts, as the leader says.
func (d *Daemon) exported(ctx context.Context) (through uint64, err error) {
	if d.node.IsLeader() {
		return d.exportedHere()
	}
	way, url, ok := d.leader()
	if !ok {
		return 0, fmt.Errorf("%w: no leader is known", errExportedUnknown)
	}
	ctx, cancel := context.WithTimeout(ctx, exportedPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+exportedPath, nil)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errExportedUnknown, err)
	}
	response, err := way.RoundTrip(request)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errExportedUnknown, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%w: the leader answers with the status %d", errExportedUnknown, response.StatusCode)
	}
	var answer exportedAnswer
	if err := json.NewDecoder(io.LimitReader(response.Body, maxExported)).Decode(&answer); err != nil {
		return 0, fmt.Errorf("%w: the leader's answer cannot be read: %w", errExportedUnknown, err)
	}
	return answer.Through, nil
}

func (d *Daemon) exportedHere() (uint64, error) {
	status := d.database.Status()
	if !status.Leads || !status.Attached {
		return 0, errExportedUnknown
	}
	return status.Through, nil
}

func (d *Daemon) tellExported(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return
	}
	through, err := d.exportedHere()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(exportedAnswer{through}) // the other node may be gone
}
