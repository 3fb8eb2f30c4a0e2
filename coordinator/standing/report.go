package standing

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history/postgres"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/durable"
)

// A Report is what a node says about itself. Nodes of other versions read it: what
// they do not know they leave out, and what they do not get is zero.
type Report struct {
	NodeID    string    `json:"node_id"`
	Version   string    `json:"version"`
	Platform  string    `json:"platform"`
	GoVersion string    `json:"go_version"`
	Level     uint32    `json:"level"`
	StartedAt time.Time `json:"started_at"`
	Time      time.Time `json:"time"` // by the node's clock

	Ready     bool            `json:"ready"`
	Readiness ReadinessReport `json:"readiness"`
	Raft      RaftReport      `json:"raft"`
	Journal   JournalReport   `json:"journal"`
	// Database is how the export to the database stands; nil where the node does not
	// lead, and where none is configured.
	Database *DatabaseReport `json:"database,omitempty"`
	Disk     DiskReport      `json:"disk"`
	// CertificateNotAfter is the end of the certificate that the node shows to the
	// others; zero if it has none.
	CertificateNotAfter time.Time      `json:"certificate_not_after,omitzero"`
	Snapshots           []SnapshotFile `json:"snapshots"` // of the log, newest first
	Backups             []SnapshotFile `json:"backups"`   // that the node wrote by itself, newest first
	BackupError         string         `json:"backup_error,omitempty"`
	Goroutines          int            `json:"goroutines"`
}

// ReadinessReport is cluster.Readiness as text.
type ReadinessReport struct {
	Running     bool   `json:"running"`
	LeaderKnown bool   `json:"leader_known"`
	Leading     bool   `json:"leading"`
	Applied     bool   `json:"applied"`
	Journal     string `json:"journal,omitempty"` // why facts cannot be written
	Failure     string `json:"failure,omitempty"` // why the node stopped applying
}

// DatabaseReport is how the export to the database stands, in the eyes of the leader.
type DatabaseReport struct {
	Usable     bool      `json:"usable"`
	Refused    bool      `json:"refused"` // a person has to look
	Through    uint64    `json:"through"`
	Facts      int       `json:"waiting_facts"`
	More       bool      `json:"waiting_more,omitempty"` // than were counted
	LagSeconds float64   `json:"lag_seconds"`
	Error      string    `json:"error,omitempty"`
	ErrorAt    time.Time `json:"error_at,omitzero"`
	Warning    string    `json:"warning,omitempty"`
}

// RaftReport is how far the node is, and whom it follows.
type RaftReport struct {
	Elected       bool   `json:"elected"` // it leads, in its own eyes
	Leader        string `json:"leader,omitempty"`
	Term          uint64 `json:"term"`
	LastIndex     uint64 `json:"last_index"`
	CommitIndex   uint64 `json:"commit_index"`
	AppliedIndex  uint64 `json:"applied_index"`
	StateIndex    uint64 `json:"state_index"` // of the tables
	SnapshotIndex uint64 `json:"snapshot_index"`
	// SilenceSeconds is since the node last heard of a leader, or since its start if
	// it never has; 0 for a leader.
	SilenceSeconds float64 `json:"silence_seconds"`
	// ConfigurationIndex and Members are the configuration that the node goes by.
	ConfigurationIndex uint64         `json:"configuration_index"`
	Members            []MemberReport `json:"members"`
}

// MemberReport is a member as a node knows it.
type MemberReport struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
}

// JournalReport is how full the journal is and how far it goes.
type JournalReport struct {
	Through    uint64 `json:"through"`
	Facts      uint64 `json:"facts"`
	AuditFacts uint64 `json:"audit_facts"`
	Bytes      int64  `json:"bytes"`
	MaxBytes   int64  `json:"max_bytes"`
	Dropped    uint64 `json:"dropped"`
	Expired    uint64 `json:"expired"`
	Gaps       int    `json:"gaps"` // stretches whose facts this node never saw, and does not have from others yet
	// Missing are those stretches.
	Missing    []GapReport `json:"missing,omitempty"`
	NearlyFull bool        `json:"nearly_full"`
	Error      string      `json:"error,omitempty"` // why this could not be read
}

// DiskReport is the room where the data directory is.
type DiskReport struct {
	FreeBytes  uint64 `json:"free_bytes"`
	TotalBytes uint64 `json:"total_bytes"`
	Error      string `json:"error,omitempty"`
}

// SnapshotFile is a snapshot on the node's disk.
type SnapshotFile struct {
	Name  string    `json:"name"`
	Index uint64    `json:"index,omitempty"`
	Term  uint64    `json:"term,omitempty"`
	Size  int64     `json:"size"`
	At    time.Time `json:"at"`
}

// maxFiles bounds the files that a report lists of one kind.
const maxFiles = 100

// Local is this node's report.
func (s *Service) Local() Report {
	build, ready, status := buildinfo.Get(), s.cfg.Node.Ready(), s.cfg.Node.Status()
	members, index := s.cfg.Node.Members()
	leader, _ := s.cfg.Node.Leader()
	r := Report{
		NodeID: s.cfg.NodeID, Version: build.Version, Platform: build.Platform, GoVersion: build.GoVersion, Level: fleet.Level,
		StartedAt: s.started, Time: s.cfg.Now().UTC(), Ready: ready.Ready(), Readiness: readinessReport(ready),
		Raft: RaftReport{
			Elected: status.Leader, Leader: leader, Term: status.Term, LastIndex: status.LastIndex,
			CommitIndex: status.CommitIndex, AppliedIndex: status.AppliedIndex, StateIndex: s.cfg.Node.State().Index(),
			SnapshotIndex: status.SnapshotIndex, SilenceSeconds: s.silence(status).Seconds(), ConfigurationIndex: index,
			Members: make([]MemberReport, 0, len(members)),
		},
		Journal: s.journalReport(), Disk: diskReport(s.cfg.DataDir), Goroutines: runtime.NumGoroutine(),
		Snapshots: raftSnapshots(s.cfg.DataDir), Backups: []SnapshotFile{},
	}
	if s.cfg.Database != nil {
		r.Database = databaseReport(s.cfg.Database(), s.cfg.Now())
	}
	for _, m := range members {
		r.Raft.Members = append(r.Raft.Members, MemberReport{ID: m.ID, Address: m.Address, Voter: m.Voter})
	}
	if s.cfg.CertificateNotAfter != nil {
		r.CertificateNotAfter = s.cfg.CertificateNotAfter()
	}
	if s.cfg.Backups != nil {
		files, err := s.cfg.Backups()
		r.Backups = append(r.Backups, files[:min(maxFiles, len(files))]...)
		r.BackupError = text(err)
	}
	return r
}

// silence goes by the monotonic clock: a clock that was set says nothing of the
// leader.
func (s *Service) silence(status cluster.Status) time.Duration {
	switch {
	case status.Leader:
		return 0
	case status.LastContact.IsZero():
		return time.Since(s.began)
	}
	return time.Since(status.LastContact)
}

func readinessReport(r cluster.Readiness) ReadinessReport {
	return ReadinessReport{
		Running: r.Running, LeaderKnown: r.LeaderKnown, Leading: r.Leading, Applied: r.Applied,
		Journal: text(r.Journal), Failure: text(r.Failure),
	}
}

func (s *Service) journalReport() JournalReport {
	status, err := s.cfg.Journal.Status()
	return JournalReport{
		Through: status.Through, Facts: status.Facts, AuditFacts: status.AuditFacts, Bytes: status.Bytes, MaxBytes: status.MaxBytes,
		Dropped: status.Dropped, Expired: status.Expired, Gaps: len(status.Gaps), Missing: gapReports(status.Gaps), NearlyFull: status.NearlyFull, Error: text(err),
	}
}

func databaseReport(s postgres.Status, now time.Time) *DatabaseReport {
	if !s.Leads {
		return nil
	}
	return &DatabaseReport{
		Usable: s.Attached && s.Err == nil, Refused: s.Refused, Through: s.Through, Facts: s.Waiting.Facts, More: s.Waiting.More,
		LagSeconds: s.Lag(now).Seconds(), Error: text(s.Err), ErrorAt: s.ErrAt, Warning: s.Warning,
	}
}

func diskReport(dir string) DiskReport {
	free, total, err := durable.Room(dir)
	return DiskReport{FreeBytes: free, TotalBytes: total, Error: text(err)}
}

// raftSnapshots lists the snapshots that Raft keeps, from what lies beside them.
// Raft may be replacing one: what cannot be read is left out.
func raftSnapshots(dataDir string) []SnapshotFile {
	list := []SnapshotFile{}
	metas, err := filepath.Glob(filepath.Join(dataDir, "raft", "snapshots", "*", "meta.json"))
	if err != nil {
		return list // the pattern is good; a directory's name may spoil it
	}
	for _, path := range metas {
		name := filepath.Base(filepath.Dir(path))
		var meta struct {
			Index uint64
			Term  uint64
			Size  int64
		}
		encoded, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(encoded, &meta) != nil || strings.HasSuffix(name, ".tmp") {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		list = append(list, SnapshotFile{Name: name, Index: meta.Index, Term: meta.Term, Size: meta.Size, At: info.ModTime().UTC()})
	}
	return newestFirst(list)
}

// Files lists the files in a directory whose names end with a suffix, newest
// first. A directory that is not there holds none.
func Files(dir, suffix string) ([]SnapshotFile, error) {
	list := []SnapshotFile{}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return list, fmt.Errorf("list the files in %s: %w", dir, err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || !strings.HasSuffix(entry.Name(), suffix) {
			continue
		}
		list = append(list, SnapshotFile{Name: entry.Name(), Size: info.Size(), At: info.ModTime().UTC()})
	}
	return newestFirst(list), nil
}

func newestFirst(list []SnapshotFile) []SnapshotFile {
	slices.SortStableFunc(list, func(a, b SnapshotFile) int { return b.At.Compare(a.At) })
	return list[:min(maxFiles, len(list))]
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
