package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A Pending file is written piece by piece and takes its name only when it is complete: for content that does not fit in
// memory. It belongs to one goroutine. Either Commit or Discard ends it.
type Pending struct {
	path string
	temp *os.File
	hook Hook
}

// Create begins a file beside path, with an owner and a mode as WriteFileOwned sets them. What a crash leaves behind,
// RemoveStaleTemp finds.
func Create(path string, own Ownership) (*Pending, error) { return CreateHooked(path, own, nil) }

// CreateHooked is Create with the seam for faults.
func CreateHooked(path string, own Ownership, hook Hook) (*Pending, error) {
	p := &Pending{path: path, hook: hook}
	create := func() (err error) {
		p.temp, err = os.CreateTemp(filepath.Dir(path), tempPattern) // O_EXCL, mode 0600
		return err
	}
	err := hook.Around(stepCreate, path, create)
	if err == nil {
		err = hook.Around(stepOwnership, path, func() error { return setOwnership(p.temp, own) })
	}
	if err != nil {
		err = fmt.Errorf("write %s: %w", path, err)
		if p.temp != nil {
			err = errors.Join(err, discard(p.temp))
		}
		return nil, err
	}
	return p, nil
}

// Write implements io.Writer.
func (p *Pending) Write(b []byte) (n int, err error) {
	err = p.hook.Around(stepWrite, p.path, func() (err error) {
		n, err = p.temp.Write(b)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("write %s: %w", p.path, err)
	}
	return n, nil
}

// Commit makes what was written the content of path, durably, replacing what is there. check, if it is not nil, gets what
// is on disk from its beginning and may refuse it. After an error nothing is left beside path.
func (p *Pending) Commit(check func(r io.Reader) error) error {
	renamed := false
	for _, step := range []struct {
		name Step
		do   func() error
	}{
		{stepSync, func() error { return Sync(p.temp) }},
		{stepCheck, func() error {
			if check == nil {
				return nil
			}
			if _, err := p.temp.Seek(0, io.SeekStart); err != nil {
				return err
			}
			return check(p.temp)
		}},
		{stepClose, func() error { return p.temp.Close() }},
		{stepRename, func() error {
			err := replace(p.temp.Name(), p.path)
			renamed = err == nil
			return err
		}},
		{stepSyncDir, func() error { return SyncDir(filepath.Dir(p.path)) }},
	} {
		err := p.hook.Around(step.name, p.path, step.do)
		if err == nil {
			continue
		}
		err = fmt.Errorf("write %s: %w", p.path, err)
		if !renamed {
			err = errors.Join(err, discard(p.temp))
		}
		return err
	}
	return nil
}

// stepCheck changes nothing on disk; it stands here so that a fault can be put around it.
const stepCheck Step = "durable: read back"

// Discard gives up what was written.
func (p *Pending) Discard() error { return discard(p.temp) }
