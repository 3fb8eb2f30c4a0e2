package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history/boltfile"
)

// Report is what a stopped node has in its Raft directory.
type Report struct {
	NodeID string `json:"node_id"`
	// CurrentTerm and VotedFor are the node's promises to the others.
	CurrentTerm uint64 `json:"current_term"`
	VotedFor    string `json:"voted_for,omitempty"`
	// LastIndex and LastTerm are of the newest entry, in the log or covered by a
	// snapshot: by these Raft compares logs.
	LastIndex uint64 `json:"last_index"`
	LastTerm  uint64 `json:"last_term"`
	// Committed is the newest entry of which this node knows that a majority had
	// it; there may be later ones.
	Committed uint64 `json:"committed_at_least"`
	// FirstIndex is the oldest entry that is still in the log; 0 if it is empty.
	FirstIndex uint64           `json:"first_index"`
	Snapshots  []SnapshotReport `json:"snapshots"` // newest first
	// Configuration is the newest, committed or not, and ConfigurationIndex its
	// entry.
	Configuration      []ServerReport `json:"configuration"`
	ConfigurationIndex uint64         `json:"configuration_index"`
	JournalThrough     uint64         `json:"journal_through"`
	// DamagedEntries counts those that cannot be read and that a good snapshot covers:
	// nothing is lost with them.
	DamagedEntries int `json:"damaged_entries,omitempty"`
	// Terms are runs of entries of one term, over the whole log.
	Terms []TermRun `json:"terms"`
	// Entries are the newest entries, in order.
	Entries []EntryReport `json:"entries"`
}

// SnapshotReport is one snapshot of a node.
type SnapshotReport struct {
	ID    string    `json:"id"`
	Index uint64    `json:"index"`
	Term  uint64    `json:"term"`
	Size  int64     `json:"size"`
	Time  time.Time `json:"time"`
	// Problem says why it cannot be used, "" if it can.
	Problem string `json:"problem,omitempty"`
}

// ServerReport is one server of a configuration.
type ServerReport struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
}

// TermRun is a range of entries of one term.
type TermRun struct {
	Term uint64 `json:"term"`
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// EntryReport is one entry of the log.
type EntryReport struct {
	Index  uint64    `json:"index"`
	Term   uint64    `json:"term"`
	Type   string    `json:"type"` // command, configuration, no-op or barrier
	Time   time.Time `json:"time"` // when the leader appended it, by its clock
	Digest string    `json:"digest"`
	// Kinds counts the commands in it, and Agents are those that they are about,
	// at most MaxReportAgents.
	Kinds  map[string]int `json:"kinds,omitempty"`
	Agents []string       `json:"agents,omitempty"`
}

// MaxReportAgents bounds the agents that are named of one entry.
const MaxReportAgents = 32

// Inspect reads the Raft directory of a stopped node and changes nothing there.
// The report describes the newest entries, at most as many as are asked for.
// state is what the node would know after applying its whole log, whether the
// entries were committed or not; it is nil if that cannot be made, and the error
// in the report's stead then says why. Of the configuration, Dir, NodeID and
// Journal are used; Journal may be nil if it cannot be opened.
//
// Errors wrap ErrNoState, ErrLogMissing, ErrInUse or ErrLogDamaged.
func Inspect(c Config, entries int) (report *Report, state *fleet.State, err error) {
	logs, err := c.openForReading()
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, logs.Close()) }()
	report = &Report{NodeID: c.NodeID, Snapshots: []SnapshotReport{}, Configuration: []ServerReport{}, Terms: []TermRun{}, Entries: []EntryReport{}}
	newest, err := c.inspectSnapshots(report)
	if err != nil {
		return nil, nil, err
	}
	if c.Journal != nil {
		report.JournalThrough = c.Journal.Through()
	}
	err = boltfile.Guard(func() error { return report.readLog(logs, newest, entries) })
	if err != nil && !errors.Is(err, ErrLogDamaged) {
		err = fmt.Errorf("%s: %w: %w", c.logFile(), ErrLogDamaged, err)
	}
	if err != nil {
		return nil, nil, err
	}
	state, err = c.replay(report, logs)
	if err != nil {
		return report, nil, fmt.Errorf("the state cannot be made of what is there: %w", err)
	}
	return report, state, nil
}

// openForReading opens the log so that nobody can write to it meanwhile.
func (c Config) openForReading() (*disk, error) {
	if exists, err := HasState(c.Dir); err != nil {
		return nil, err
	} else if !exists {
		return nil, fmt.Errorf("%s: %w", c.raftDir(), ErrNoState)
	}
	if err := boltfile.Check(c.logFile()); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", c.logFile(), ErrLogMissing)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", c.logFile(), ErrLogDamaged, err)
	}
	store := &disk{path: c.logFile(), log: c.Log}
	err := boltfile.Guard(func() error {
		file, err := raftboltdb.New(raftboltdb.Options{
			Path: c.logFile(), BoltOptions: &bbolt.Options{Timeout: lockPatience, ReadOnly: true}, MsgpackUseNewTimeFormat: true,
		})
		store.files = file
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", c.logFile(), ErrInUse)
	case errors.Is(err, boltfile.ErrDamaged):
		return nil, fmt.Errorf("%s: %w: %w", c.logFile(), ErrLogDamaged, err)
	case err != nil:
		return nil, fmt.Errorf("open the Raft log: %w", err)
	}
	return store, nil
}

// storedSnapshot is the description that Raft keeps beside each snapshot.
type storedSnapshot struct {
	raft.SnapshotMeta
	CRC []byte
}

const (
	snapshotsDir  = "snapshots" // Raft's names
	snapshotMeta  = "meta.json"
	snapshotState = "state.bin"
)

var crcTable = crc64.MakeTable(crc64.ECMA)

// inspectSnapshots lists the snapshots, newest first, and proves each; the
// newest one that is good is returned, nil if there is none. Raft's own store
// would write to the directory.
func (c Config) inspectSnapshots(report *Report) (newest *storedSnapshot, err error) {
	dir := filepath.Join(c.raftDir(), snapshotsDir)
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the snapshots: %w", err)
	}
	var found []storedSnapshot
	for _, entry := range list {
		if !entry.IsDir() || strings.HasSuffix(entry.Name(), ".tmp") {
			continue
		}
		meta, err := readSnapshotMeta(filepath.Join(dir, entry.Name(), snapshotMeta))
		if err != nil {
			report.Snapshots = append(report.Snapshots, SnapshotReport{ID: entry.Name(), Problem: err.Error()})
			continue
		}
		meta.ID = entry.Name()
		found = append(found, meta)
	}
	slices.SortFunc(found, func(a, b storedSnapshot) int {
		if a.Term != b.Term {
			return compareUint(b.Term, a.Term)
		}
		return compareUint(b.Index, a.Index)
	})
	unreadable := report.Snapshots
	report.Snapshots = []SnapshotReport{}
	for i, meta := range found {
		s := SnapshotReport{ID: meta.ID, Index: meta.Index, Term: meta.Term, Size: meta.Size, Time: snapshotTime(meta.ID)}
		if err := proveSnapshot(filepath.Join(dir, meta.ID, snapshotState), &found[i]); err != nil {
			s.Problem = err.Error()
		} else if newest == nil {
			newest = &found[i]
		}
		report.Snapshots = append(report.Snapshots, s)
	}
	report.Snapshots = append(report.Snapshots, unreadable...)
	return newest, nil
}

func compareUint(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func readSnapshotMeta(path string) (storedSnapshot, error) {
	var meta storedSnapshot
	file, err := os.Open(path)
	if err != nil {
		return meta, err
	}
	defer file.Close()
	if err := json.NewDecoder(io.LimitReader(file, 1<<20)).Decode(&meta); err != nil {
		return meta, fmt.Errorf("its description cannot be read: %w", err)
	}
	return meta, nil
}

// snapshotTime is the last part of the name that Raft gives: milliseconds.
func snapshotTime(id string) time.Time {
	ms, err := strconv.ParseInt(id[strings.LastIndexByte(id, '-')+1:], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// proveSnapshot compares the file with Raft's checksum, and what is in it with
// its own.
func proveSnapshot(path string, meta *storedSnapshot) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := crc64.New(crcTable)
	n, err := io.Copy(sum, file)
	switch {
	case err != nil:
		return err
	case n != meta.Size:
		return fmt.Errorf("it has %d octets instead of %d", n, meta.Size)
	case !bytes.Equal(sum.Sum(nil), meta.CRC):
		return errors.New("its checksum is wrong")
	}
	return nil
}

// readLog goes through the whole log once.
func (r *Report) readLog(logs *disk, newest *storedSnapshot, limit int) error {
	if term, err := logs.GetUint64([]byte("CurrentTerm")); err == nil {
		r.CurrentTerm = term
	} else if !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	if candidate, err := logs.Get([]byte("LastVoteCand")); err == nil {
		r.VotedFor = string(candidate)
	}
	first, err := logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := logs.LastIndex()
	if err != nil {
		return err
	}
	r.FirstIndex = first
	if newest != nil {
		r.LastIndex, r.LastTerm, r.Committed = newest.Index, newest.Term, newest.Index
		r.setConfiguration(newest.Configuration, newest.ConfigurationIndex)
	}
	r.Committed = max(r.Committed, r.JournalThrough)
	for index := first; index != 0 && index <= last; index++ {
		var entry raft.Log
		if err := logs.GetLog(index, &entry); errors.Is(err, raft.ErrLogNotFound) {
			continue // a restore leaves a hole
		} else if errors.Is(err, ErrLogDamaged) && newest != nil && index <= newest.Index {
			r.DamagedEntries++
			continue // the snapshot has what it did
		} else if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if entry.Index != index {
			return fmt.Errorf("entry %d says that it is %d", index, entry.Index)
		}
		if err := r.addEntry(&entry, limit); err != nil {
			return err
		}
	}
	return nil
}

func (r *Report) addEntry(entry *raft.Log, limit int) error {
	if n := len(r.Terms); n > 0 && r.Terms[n-1].Term == entry.Term && r.Terms[n-1].To+1 == entry.Index {
		r.Terms[n-1].To = entry.Index
	} else {
		r.Terms = append(r.Terms, TermRun{Term: entry.Term, From: entry.Index, To: entry.Index})
	}
	if entry.Index > r.LastIndex {
		r.LastIndex, r.LastTerm = entry.Index, entry.Term
	}
	if entry.Type == raft.LogConfiguration && entry.Index > r.ConfigurationIndex {
		configuration, err := decodeConfiguration(entry.Data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", entry.Index, err)
		}
		r.setConfiguration(configuration, entry.Index)
	}
	if limit <= 0 {
		return nil
	}
	if len(r.Entries) == limit {
		r.Entries = append(r.Entries[:0], r.Entries[1:]...)
	}
	r.Entries = append(r.Entries, describeEntry(entry))
	return nil
}

// decodeConfiguration turns Raft's panic about octets that are none into an error.
func decodeConfiguration(data []byte) (c raft.Configuration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the configuration in it cannot be read: %v", p)
		}
	}()
	return raft.DecodeConfiguration(data), nil
}

func (r *Report) setConfiguration(c raft.Configuration, index uint64) {
	r.ConfigurationIndex = index
	r.Configuration = []ServerReport{}
	for _, server := range c.Servers {
		r.Configuration = append(r.Configuration, ServerReport{ID: string(server.ID), Address: string(server.Address), Voter: server.Suffrage == raft.Voter})
	}
}

func describeEntry(entry *raft.Log) EntryReport {
	sum := sha256.Sum256(append([]byte{byte(entry.Type)}, entry.Data...))
	e := EntryReport{Index: entry.Index, Term: entry.Term, Time: entry.AppendedAt.UTC(), Digest: hex.EncodeToString(sum[:16])}
	switch entry.Type {
	case raft.LogCommand:
		e.Type = "command"
	case raft.LogConfiguration:
		e.Type = "configuration"
	case raft.LogBarrier:
		e.Type = "barrier"
	default:
		e.Type = "no-op"
	}
	if entry.Type != raft.LogCommand {
		return e
	}
	e.Kinds = map[string]int{}
	commands, err := fleet.DecodeEntry(entry.Data)
	if err != nil {
		e.Kinds["unreadable"] = 1
		return e
	}
	for _, command := range commands {
		d := command.Describe()
		e.Kinds[d.Kind]++
		if d.Agent != "" && len(e.Agents) < MaxReportAgents && !slices.Contains(e.Agents, d.Agent) {
			e.Agents = append(e.Agents, d.Agent)
		}
	}
	return e
}

// replay makes the state of the newest good snapshot from which the log goes on,
// and of the log.
func (c Config) replay(report *Report, logs *disk) (*fleet.State, error) {
	var reasons []error
	usable := func(index uint64) bool { return report.FirstIndex == 0 || report.FirstIndex <= index+1 }
	for _, s := range report.Snapshots {
		if s.Problem != "" || !usable(s.Index) {
			continue
		}
		state, err := c.restoreFile(s.ID)
		if err == nil {
			err = applyLog(state, logs, s.Index+1, report.LastIndex)
		}
		if err == nil {
			return state, nil
		}
		reasons = append(reasons, fmt.Errorf("snapshot %s: %w", s.ID, err))
	}
	if len(report.Snapshots) == 0 && report.FirstIndex <= 1 {
		state, err := fleet.New()
		if err != nil {
			return nil, err
		}
		return state, applyLog(state, logs, 1, report.LastIndex)
	}
	if len(reasons) == 0 {
		reasons = append(reasons, errors.New("no snapshot is good from which the log goes on"))
	}
	return nil, errors.Join(reasons...)
}

func (c Config) restoreFile(id string) (*fleet.State, error) {
	state, err := fleet.New()
	if err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Join(c.raftDir(), snapshotsDir, id, snapshotState))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return state, state.Restore(file)
}

func applyLog(state *fleet.State, logs *disk, from, to uint64) error {
	return boltfile.Guard(func() error {
		for index := from; index <= to; index++ {
			var entry raft.Log
			if err := logs.GetLog(index, &entry); err != nil {
				return fmt.Errorf("log entry %d: %w", index, err)
			}
			if entry.Type != raft.LogCommand {
				continue
			}
			if _, _, err := state.Apply(index, entry.Data); err != nil {
				return err
			}
		}
		return nil
	})
}
