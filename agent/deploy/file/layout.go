package file

import (
	"errors"
	"fmt"
	"path/filepath"
)

// filesLayout is LayoutFiles.
type filesLayout struct{ t *Target }

func newLayout(l Layout, t *Target) (layout, error) {
	switch l {
	case "", LayoutFiles:
		return &filesLayout{t}, nil
	case LayoutDirectory:
		return newDirectoryLayout(t)
	}
	return nil, fmt.Errorf("%q must be %q or %q", string(l), LayoutFiles, LayoutDirectory)
}

// layout is how a plan gets onto the disk. The order of calls is locate, stage,
// swap, sweep; what swap does is undone by restore with the transaction's record.
type layout interface {
	// locate fills in the items' places.
	locate(p *plan) error
	// stage writes the new files where no program reads them.
	stage(p *plan) error
	// swap puts what was staged in place.
	swap(p *plan) error
	// sweep removes what is neither in place nor needed by r, the record of an
	// open transaction or nil.
	sweep(r *record) error
}

func (l *filesLayout) locate(p *plan) error {
	taken := map[string]kind{}
	for _, spec := range l.t.files {
		where, err := l.t.locateFile(spec.path)
		if err != nil {
			return fmt.Errorf("%s file: %w", spec.kind, err)
		}
		if other, ok := taken[where]; ok {
			return fmt.Errorf("%s and %s files: both paths lead to %s; give each a file of its own", other, spec.kind, where)
		}
		taken[where] = spec.kind
		p.items = append(p.items, item{fileSpec: spec, where: where})
	}
	return nil
}

func (l *filesLayout) stage(p *plan) error {
	for _, i := range p.items {
		if i.inPlace() {
			continue
		}
		if err := l.t.create(tempFor(i.where), i.kind, i.content, i.want); err != nil {
			return err
		}
	}
	return nil
}

func (l *filesLayout) swap(p *plan) error {
	var dirs []string
	for _, i := range p.items {
		// Also where nothing is renamed now: a call that crashed may have done so
		// without having come to the sync.
		dirs = append(dirs, filepath.Dir(i.where))
		if i.inPlace() {
			continue
		}
		if err := l.t.rename(tempFor(i.where), i.where); err != nil {
			return err
		}
	}
	return l.t.syncAll(dirs)
}

func (l *filesLayout) sweep(*record) error {
	var problems []error
	for _, spec := range l.t.files {
		where, err := l.t.locateFile(spec.path)
		if err != nil {
			continue // nothing was ever written there
		}
		problems = append(problems, l.t.removeLeftover(tempFor(where)))
	}
	return errors.Join(problems...)
}
