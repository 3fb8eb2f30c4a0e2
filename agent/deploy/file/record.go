package file

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/shared/durable"
)

const (
	recordVersion  = 1
	snapshotPrefix = "snapshot-"
	recordName     = "record.json"
)

// record describes what was there before a transaction began. It lies in the
// snapshot's directory beside the contents of the files, and while it lies there
// the transaction is open: writing it begins, removing it ends.
type record struct {
	Version     int    `json:"version"`
	ID          string `json:"id"`
	Certificate string `json:"certificate"`
	// Generation is the one whose deployment began the transaction; a later one
	// that finds it open takes it over, with the snapshot as it is.
	Generation uint64 `json:"generation"`
	// One of these, by layout.
	Files []savedFile `json:"files,omitempty"`
	Link  *savedLink  `json:"link,omitempty"`
	// Served is the fingerprint of the leaf that the program served, OnDisk of
	// the one that the files held; empty if unknown or none.
	Served string `json:"served,omitempty"`
	OnDisk string `json:"on_disk,omitempty"`
}

// savedFile is one file as it was.
type savedFile struct {
	Kind    kind   `json:"kind"`
	Path    string `json:"path"`              // links followed
	Content string `json:"content,omitempty"` // file in the snapshot; empty if there was none
	attributes
}

// savedLink is the link of LayoutDirectory as it was.
type savedLink struct {
	Path   string `json:"path"`
	Target string `json:"target,omitempty"` // empty if there was none
}

// savedState is what goes through Task.Save while a transaction is open; nil
// goes through it at the end. The record decides in doubt, since it outlives
// the generation that State belongs to.
type savedState struct {
	Version     int    `json:"version"`
	Transaction string `json:"transaction"`
}

func isEmptyState(state json.RawMessage) bool {
	return len(state) == 0 || string(state) == "null"
}

// journal keeps the record of one target.
type journal struct {
	dir  string
	save func(json.RawMessage) error
	hook durable.Hook
	log  *slog.Logger
}

func (t *Target) newJournal(task *deploy.Task) *journal {
	return &journal{dir: task.ScratchDir, save: task.Save, hook: t.hook,
		log: t.log.With("certificate", task.Certificate, "generation", task.Generation)}
}

func (j *journal) snapshotDir(id string) string { return filepath.Join(j.dir, snapshotPrefix+id) }

// find returns the record of the open transaction, or nil, and removes
// snapshots without a record: they were not finished, or no longer needed.
func (j *journal) find() (*record, error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("looking for an open transaction: %w", err)
	}
	var found *record
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), snapshotPrefix) {
			continue
		}
		dir := filepath.Join(j.dir, entry.Name())
		data, err := os.ReadFile(filepath.Join(dir, recordName))
		if errors.Is(err, fs.ErrNotExist) {
			if err := around(j.hook, stepForget, dir, func() error { return durable.RemoveAll(dir) }); err != nil {
				return nil, fmt.Errorf("removing an old snapshot: %w", err)
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the record of an open transaction: %w", err)
		}
		r, err := decodeRecord(data)
		if err == nil && snapshotPrefix+r.ID != entry.Name() {
			err = fmt.Errorf("it belongs to snapshot %q", r.ID)
		}
		if err == nil && found != nil {
			err = fmt.Errorf("transaction %s is open too", found.ID)
		}
		if err != nil {
			return nil, fmt.Errorf("the record %s cannot be used: %w; check that this target's files match each other, then remove the directory %s",
				filepath.Join(dir, recordName), err, dir)
		}
		found = r
	}
	return found, nil
}

func decodeRecord(data []byte) (*record, error) {
	r := new(record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, err
	}
	switch {
	case r.Version != recordVersion:
		return nil, fmt.Errorf("version %d is not %d, the one that this agent writes", r.Version, recordVersion)
	case (len(r.Files) > 0) == (r.Link != nil):
		return nil, errors.New("it must name either files or a link")
	case r.Link != nil && !filepath.IsAbs(r.Link.Path):
		return nil, fmt.Errorf("link %q is not absolute", r.Link.Path)
	}
	for _, f := range r.Files {
		if !filepath.IsAbs(f.Path) {
			return nil, fmt.Errorf("file %q is not absolute", f.Path)
		}
		if f.Content != "" && (!filepath.IsLocal(f.Content) || filepath.Base(f.Content) != f.Content) {
			return nil, fmt.Errorf("content %q is not a file of the snapshot", f.Content)
		}
	}
	return r, nil
}

// empty reports whether nothing was there before.
func (r *record) empty() bool {
	return (r.Link == nil || r.Link.Target == "") &&
		!slices.ContainsFunc(r.Files, func(f savedFile) bool { return f.Content != "" })
}

// covers reports whether the record describes exactly what the plan replaces.
func (r *record) covers(p *plan) bool {
	if r.Link != nil || p.link != nil {
		return r.Link != nil && p.link != nil && r.Link.Path == p.link.where
	}
	return len(r.Files) == len(p.items) && !slices.ContainsFunc(p.items, func(i item) bool {
		return !slices.ContainsFunc(r.Files, func(f savedFile) bool { return f.Path == i.where })
	})
}

// begin makes the snapshot and its record durable, then the state.
func (j *journal) begin(r *record, contents [][]byte) error {
	dir := j.snapshotDir(r.ID)
	if err := around(j.hook, stepSnapshotDir, dir, func() error { return durable.MkdirAll(dir, 0o700) }); err != nil {
		return err
	}
	for i, f := range r.Files {
		if f.Content == "" {
			continue
		}
		path := filepath.Join(dir, f.Content)
		if err := around(j.hook, stepSnapshot, path, func() error { return durable.WriteFile(path, contents[i], 0o600) }); err != nil {
			return err
		}
	}
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("encoding the record: %w", err)
	}
	if err := around(j.hook, stepOpen, dir, func() error {
		return durable.WriteFile(filepath.Join(dir, recordName), data, 0o600)
	}); err != nil {
		return err
	}
	return j.remember(r)
}

// remember saves the state of an open transaction.
func (j *journal) remember(r *record) error {
	state, err := json.Marshal(savedState{Version: recordVersion, Transaction: r.ID})
	if err != nil {
		return fmt.Errorf("encoding the state: %w", err)
	}
	return around(j.hook, stepSave, j.dir, func() error { return j.save(state) })
}

// close ends the transaction. Removing the record is the moment of decision: a
// crash before it leaves the transaction open, one after it only leftovers. The
// snapshot holds the old key and goes at once.
func (j *journal) close(r *record) error {
	dir := j.snapshotDir(r.ID)
	if err := around(j.hook, stepClose, dir, func() error { return removeIfThere(filepath.Join(dir, recordName)) }); err != nil {
		return err
	}
	if err := around(j.hook, stepCloseSync, dir, func() error { return durable.SyncDir(dir) }); err != nil {
		return err
	}
	saveErr := around(j.hook, stepSaveEnd, j.dir, func() error { return j.save(nil) })
	if err := around(j.hook, stepForget, dir, func() error { return durable.RemoveAll(dir) }); err != nil {
		// The next call tries again.
		j.log.Warn("removing a snapshot failed", "err", err)
	}
	return saveErr
}

// capture describes what the plan will replace.
func (p *plan) capture(id string, task *deploy.Task, served string) (*record, [][]byte) {
	r := &record{Version: recordVersion, ID: id, Certificate: task.Certificate, Generation: task.Generation, Served: served}
	contents := make([][]byte, len(p.items))
	for i, item := range p.items {
		contents[i] = item.before.content
	}
	r.OnDisk = oldFingerprint(contents)
	if p.link != nil {
		r.Link = &savedLink{Path: p.link.where, Target: p.link.old}
		return r, contents
	}
	for i, item := range p.items {
		saved := savedFile{Kind: item.kind, Path: item.where}
		if item.before.exists {
			saved.Content = fmt.Sprintf("%d-%s", i, item.kind)
			saved.attributes = item.before.attributes
		}
		r.Files = append(r.Files, saved)
	}
	return r, contents
}

// restore puts back what the record describes: first everything is written
// beside, so that a full disk leaves the new files whole and together.
func (t *Target) restore(j *journal, r *record) error {
	if r.Link != nil {
		if r.Link.Target == "" {
			if err := t.remove(r.Link.Path); err != nil {
				return err
			}
			return t.syncDir(filepath.Dir(r.Link.Path))
		}
		return t.pointLink(r.Link.Path, r.Link.Target)
	}
	var apply []func() error
	var dirs []string
	for _, f := range r.Files {
		now, err := observe(f.Path)
		if err != nil {
			return err
		}
		dirs = append(dirs, filepath.Dir(f.Path))
		if f.Content == "" {
			if now.exists {
				apply = append(apply, func() error { return t.remove(f.Path) })
			}
			continue
		}
		content, err := os.ReadFile(filepath.Join(j.snapshotDir(r.ID), f.Content))
		if err != nil {
			return fmt.Errorf("reading the snapshot: %w", err)
		}
		if now.holds(content, f.attributes) {
			continue
		}
		if err := t.create(tempFor(f.Path), f.Kind, content, f.attributes); err != nil {
			return err
		}
		apply = append(apply, func() error { return t.rename(tempFor(f.Path), f.Path) })
	}
	for _, do := range apply {
		if err := do(); err != nil {
			return err
		}
	}
	return t.syncAll(dirs)
}
