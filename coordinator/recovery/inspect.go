package recovery

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/backup"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/buildinfo"
)

// Files of the data directory, as the coordinator names them.
const (
	journalFile = "journal.db"
	nodeIDFile  = "node-id"
	sealKeyFile = "seal.key"
)

// node is a stopped node's data directory.
type node struct {
	settings *config.Settings
	id       string
	log      *slog.Logger
	now      func() time.Time
	// newJournal lets a recovery begin a new journal if it has to.
	newJournal bool
}

func openNode(s *config.Settings, log *slog.Logger) (*node, error) {
	n := &node{settings: s, log: log, now: time.Now}
	text, err := os.ReadFile(filepath.Join(s.DataDir, nodeIDFile))
	switch {
	case err == nil:
		n.id = strings.TrimSpace(string(text))
	case s.NodeID != "" && errors.Is(err, os.ErrNotExist):
		n.id = s.NodeID
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s is no data directory of a coordinator: there is no %s in it; give the right one with --set data_dir=DIRECTORY", s.DataDir, nodeIDFile)
	default:
		return nil, fmt.Errorf("node id: %w", err)
	}
	return n, nil
}

func (n *node) clusterConfig(journal cluster.Journal) cluster.Config {
	return cluster.Config{Dir: n.settings.DataDir, NodeID: n.id, Journal: journal, Log: n.log}
}

func (n *node) journalConfig() history.Config {
	return history.Config{
		Path: filepath.Join(n.settings.DataDir, journalFile), Log: n.log,
		MaxAge: n.settings.Journal.Retention, MaxBytes: n.settings.Journal.MaxBytes,
	}
}

func (n *node) openJournal() (*history.Journal, error) { return history.Open(n.journalConfig()) }

// inspect looks at everything and changes nothing. The report describes so many
// of the newest entries.
func (n *node) inspect(entries int) (report *Report, err error) {
	report = &Report{Format: reportFormat, Time: n.now().UTC().Truncate(time.Second), Version: buildinfo.Version(), DataDir: n.settings.DataDir}
	var through cluster.Journal
	journal, err := n.openJournal()
	if errors.Is(err, history.ErrInUse) {
		return nil, err
	}
	if err != nil {
		report.JournalProblem = err.Error()
	} else {
		through = journal
		defer func() { err = errors.Join(err, journal.Close()) }()
	}
	raw, state, err := cluster.Inspect(n.clusterConfig(through), entries)
	if raw == nil {
		return nil, err
	}
	report.Report = *raw
	if err != nil {
		report.StateProblem = err.Error()
		return report, nil
	}
	n.describeState(report, state)
	return report, nil
}

func (n *node) describeState(report *Report, state *fleet.State) {
	view := state.View()
	report.Rows = backup.Rows(view)
	stored, ok := view.CA()
	if !ok {
		report.StateProblem = "there is no built-in CA in it: the cluster was never ready"
		return
	}
	id, err := ca.StoredClusterID(stored)
	if err != nil {
		report.StateProblem = err.Error()
		return
	}
	report.ClusterID = id
	authority, err := ca.New(ca.Config{
		SealKey: n.settings.CA.SealKey.Reveal(), SealKeyFile: filepath.Join(n.settings.DataDir, sealKeyFile), Name: n.settings.CA.Name,
		LeafLifetime: n.settings.CA.LeafLifetime, IdentityLifetime: n.settings.CA.IdentityLifetime,
	})
	if err == nil {
		err = authority.Check(stored)
	}
	if err != nil {
		report.SealKeyProblem = err.Error()
	}
}
