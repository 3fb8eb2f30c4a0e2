package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/snapshotfile"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/jitter"
)

// Node is whose state is kept. *cluster.Node is one.
type Node interface {
	State() *fleet.State
	Status() cluster.Status
}

// Config of a Keeper. Now and Hook may be left out.
type Config struct {
	Node   Node
	NodeID string
	// Dir is where the files are, an absolute path. Nobody but the coordinator's
	// user may look into it.
	Dir string
	// Interval is how long after a snapshot the next one is due, and Keep how many
	// good ones stay.
	Interval time.Duration
	Keep     int
	Log      *slog.Logger
	Now      func() time.Time
	Hook     durable.Hook
}

func (c Config) validate() error {
	var problems []error
	require := func(ok bool, problem string) {
		if !ok {
			problems = append(problems, errors.New(problem))
		}
	}
	require(c.Node != nil, "Node is missing")
	require(c.NodeID != "", "NodeID is missing")
	require(filepath.IsAbs(c.Dir), fmt.Sprintf("Dir %q is not an absolute path", c.Dir))
	require(c.Interval > 0, fmt.Sprintf("Interval %v is not positive", c.Interval))
	require(c.Keep > 0, fmt.Sprintf("Keep %d is not positive", c.Keep))
	require(c.Log != nil, "Log is missing")
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("backup configuration: %w", err)
	}
	return nil
}

// Keeper takes snapshots of a node from time to time. Its methods may be called
// by any number of goroutines.
type Keeper struct {
	config Config

	taking sync.Mutex // held while the directory is changed

	mu     sync.Mutex
	status Status // guarded by mu
	// proved are the files that were read to their end, and what came of it.
	proved map[string]bool // guarded by taking
	// ahead are the files that were dated later than the clock when they were
	// seen. They stay doubtful when their date has passed.
	ahead map[string]bool // guarded by taking
}

// Status is how the snapshots stand.
type Status struct {
	// Newest is the newest good snapshot, "" if there is none; Index, Time and
	// Size are its own.
	Newest string
	Index  uint64
	Time   time.Time
	Size   int64
	// Good counts the good snapshots that are there, and Bad those that are not.
	Good, Bad int
	// Err is why the last attempt failed, at ErrTime; nil if it went well.
	Err     error
	ErrTime time.Time
	// Failures counts the attempts that failed, since the start.
	Failures uint64
}

// Age is how old the newest good snapshot is; ok is false if there is none.
func (s Status) Age(now time.Time) (age time.Duration, ok bool) {
	return max(0, now.Sub(s.Time)), s.Newest != ""
}

// stepRemove is a durable step of this package; those of writing are durable's.
const stepRemove durable.Step = "backup: remove an old snapshot"

// New checks the configuration. It touches nothing.
func New(c Config) (*Keeper, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Keeper{config: c, proved: map[string]bool{}, ahead: map[string]bool{}}, nil
}

// Status is how the snapshots stand now.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.status
}

// Run takes snapshots until ctx is done; then it returns nil. One that fails is
// told and tried again: the coordinator goes on without.
func (k *Keeper) Run(ctx context.Context) error {
	// A start that is late takes one at once. Looking often costs nothing, and so
	// a disk that was full is used as soon as it has room.
	look := max(k.config.Interval/8, time.Second)
	soon := make(chan struct{}, 1)
	soon <- struct{}{}
	jitter.Loop(ctx, look, jitter.DefaultSchedulerJitter, soon, func(context.Context) { k.look() })
	return nil
}

// look takes a snapshot if one is due.
func (k *Keeper) look() {
	if _, known := k.config.Node.State().View().CA(); !known {
		return // a node that has not heard of its cluster, or one that is new
	}
	err := k.survey()
	if err == nil {
		status := k.Status()
		age, taken := status.Age(k.config.Now())
		// What was taken by a clock that is ahead is not waited for.
		if due := !taken || age >= k.config.Interval || status.Time.After(k.config.Now()); !due {
			return
		}
		_, err = k.Take()
	}
	if err != nil {
		mend := "see what the error says, and that the directory can be written to"
		if durable.IsFull(err) {
			mend = "make room on this disk, or keep the snapshots on another one"
		}
		k.config.Log.Warn("no scheduled snapshot could be taken", "dir", k.config.Dir, "err", err, "mend", mend)
	}
}

// Take takes a snapshot now, unless the newest one is of the state's index and
// its date can be believed. It returns the path of the newest.
func (k *Keeper) Take() (path string, err error) {
	k.taking.Lock()
	defer k.taking.Unlock()
	defer func() { k.settle(err) }()
	if err := durable.EnsurePrivateDir(k.config.Dir); err != nil {
		return "", err
	}
	pinned := k.config.Node.State().Snapshot()
	header, err := Describe(pinned.View(), k.config.NodeID, k.config.Node.Status().Term, k.config.Now())
	if err != nil {
		return "", err
	}
	files, err := k.list(header.ClusterID)
	if err != nil {
		return "", err
	}
	if newest, ok := k.newest(files); ok && newest.index == pinned.Index() && !newest.ahead {
		return newest.path, nil
	}
	path = filepath.Join(k.config.Dir, fileName(header))
	summary, err := k.write(path, header, pinned)
	if err != nil {
		return "", err
	}
	k.proved[path] = true
	k.config.Log.Info("took a scheduled snapshot", "path", path, "index", summary.Index, "size", summary.Size)
	return path, k.retire(header.ClusterID, path)
}

// write makes a file that was read back from the disk before it gets its name.
func (k *Keeper) write(path string, header snapshotfile.Header, pinned *fleet.Snapshot) (snapshotfile.Summary, error) {
	own := durable.Ownership{UID: durable.Keep, GID: durable.Keep, Mode: 0o600}
	file, err := durable.CreateHooked(path, own, k.config.Hook)
	if err != nil {
		return snapshotfile.Summary{}, err
	}
	written, err := snapshotfile.Write(file, header, pinned.Persist)
	if err != nil {
		return snapshotfile.Summary{}, errors.Join(err, file.Discard())
	}
	return written, file.Commit(func(r io.Reader) error {
		read, err := Check(r)
		if err == nil && read.SHA256 != written.SHA256 {
			err = snapshotfile.ErrDamaged
		}
		if err != nil {
			return fmt.Errorf("what was written reads differently: %w", err)
		}
		return nil
	})
}

// stored is one file of the directory, as its name describes it.
type stored struct {
	path  string
	index uint64
	time  time.Time
	size  int64
	ahead bool // the clock that dated it was ahead
}

// newestFirst orders by the time and then the index. The index cannot come
// first: a snapshot that is restored to a new cluster keeps the cluster's ID, and
// the log goes on from its index, which may be lower than that of files here.
// Files whose time cannot be believed are older than all others, and only their
// index tells them apart.
func newestFirst(a, b stored) int {
	switch {
	case a.ahead != b.ahead:
		if a.ahead {
			return 1
		}
		return -1
	case a.ahead:
		return cmp.Or(cmp.Compare(b.index, a.index), b.time.Compare(a.time))
	default:
		return cmp.Or(b.time.Compare(a.time), cmp.Compare(b.index, a.index))
	}
}

var namePattern = regexp.MustCompile(`^certctl-([0-9a-f]{1,64})-([0-9]{20})-([0-9]{8}T[0-9]{6}Z)\.snapshot$`)

const nameTime = "20060102T150405Z"

// fileName sorts by the index, and tells the cluster and the time.
func fileName(h snapshotfile.Header) string {
	return fmt.Sprintf("certctl-%s-%020d-%s.snapshot", h.ClusterID, h.Index, h.Time.Format(nameTime))
}

// list finds the files of a cluster, newest first. Whatever else is in the
// directory is not this package's.
func (k *Keeper) list(clusterID string) ([]stored, error) {
	entries, err := os.ReadDir(k.config.Dir)
	if err != nil {
		return nil, fmt.Errorf("list the snapshots: %w", err)
	}
	now := k.config.Now()
	var files []stored
	for _, entry := range entries {
		parts := namePattern.FindStringSubmatch(entry.Name())
		if parts == nil || parts[1] != clusterID || !entry.Type().IsRegular() {
			continue
		}
		f := stored{path: filepath.Join(k.config.Dir, entry.Name())}
		if _, err := fmt.Sscanf(parts[2], "%d", &f.index); err != nil {
			continue
		}
		if f.time, err = time.Parse(nameTime, parts[3]); err != nil {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			continue // it has gone
		}
		f.size = info.Size()
		if f.time.After(now) {
			k.ahead[f.path] = true
		}
		f.ahead = k.ahead[f.path]
		files = append(files, f)
	}
	slices.SortFunc(files, newestFirst)
	return files, nil
}

// good reads a file to its end, once.
func (k *Keeper) good(path string) bool {
	if good, known := k.proved[path]; known {
		return good
	}
	file, err := os.Open(path)
	if err == nil {
		_, err = Check(file)
		err = errors.Join(err, file.Close())
	}
	k.proved[path] = err == nil
	if err != nil {
		k.config.Log.Warn("a scheduled snapshot is not good; it is left as it is", "path", path, "err", err)
	}
	return err == nil
}

// newest is the newest good file.
func (k *Keeper) newest(files []stored) (stored, bool) {
	for _, f := range files {
		if k.good(f.path) {
			return f, true
		}
	}
	return stored{}, false
}

// retire removes the good files beyond Keep, oldest first, but never the one that
// was just written, whatever the clock did meanwhile. Files that are not good do
// not count and stay.
func (k *Keeper) retire(clusterID, written string) error {
	files, err := k.list(clusterID)
	if err != nil {
		return err
	}
	kept := 1 // written
	for _, f := range files {
		if f.path == written || !k.good(f.path) {
			continue
		}
		if kept++; kept <= k.config.Keep {
			continue
		}
		if err := k.config.Hook.Around(stepRemove, f.path, func() error { return durable.Remove(f.path) }); err != nil {
			return fmt.Errorf("remove an old snapshot: %w", err)
		}
		delete(k.proved, f.path)
		delete(k.ahead, f.path)
	}
	return nil
}

// survey looks at what is in the directory, and clears away what a crash left.
func (k *Keeper) survey() (err error) {
	k.taking.Lock()
	defer k.taking.Unlock()
	defer func() {
		if err != nil {
			k.settle(err)
		}
	}()
	if err := durable.EnsurePrivateDir(k.config.Dir); err != nil {
		return err
	}
	if _, err := durable.RemoveStaleTemp(k.config.Dir); err != nil {
		return err
	}
	return k.count()
}

// count brings the status in step with the directory.
func (k *Keeper) count() error {
	header, err := Describe(k.config.Node.State().View(), k.config.NodeID, 0, k.config.Now())
	if err != nil {
		return err
	}
	files, err := k.list(header.ClusterID)
	if err != nil {
		return err
	}
	var newest stored
	good, bad := 0, 0
	for _, f := range files {
		switch {
		case !k.good(f.path):
			bad++
		default:
			if good++; good == 1 {
				newest = f
			}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Newest, k.status.Index, k.status.Time, k.status.Size = newest.path, newest.index, newest.time, newest.size
	k.status.Good, k.status.Bad = good, bad
	return nil
}

// settle notes how an attempt went.
func (k *Keeper) settle(err error) {
	if err == nil {
		err = k.count()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Err = err
	if err != nil {
		k.status.ErrTime = k.config.Now()
		k.status.Failures++
	}
}
