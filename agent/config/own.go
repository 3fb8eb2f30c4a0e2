package config

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/certctl/certctl/shared/settings"
)

// Own is what the agent itself lives on, where no certificate is installed: that
// would destroy it.
type Own struct {
	dirs  []ownPath
	files []ownPath
}

// ownPath is a path as it is written, and where it leads as far as that can be
// told: whoever checks a configuration may not enter the agent's directories.
type ownPath struct{ plain, leads, what string }

func newOwnPath(path, what string) ownPath { return new(lookup).ownPath(path, what) }

func (l *lookup) ownPath(path, what string) ownPath {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	p := ownPath{plain: path, leads: path, what: what}
	if leads, err := l.resolve(path); err == nil {
		p.leads = leads
	}
	return p
}

// is reports whether two paths are the same one.
func (p ownPath) is(other ownPath) bool {
	return samePath(p.plain, other.plain) || samePath(p.leads, other.leads)
}

// in reports whether a path is below a directory.
func (p ownPath) in(dir ownPath) bool { return Below(p.plain, dir.plain) || Below(p.leads, dir.leads) }

func samePath(a, b string) bool {
	return a == b || runtime.GOOS == "windows" && strings.EqualFold(a, b)
}

// Own are the directories and files of the agent with these settings, those that
// the configuration was read from among them.
func (s *Settings) Own(report *settings.Report) *Own {
	own := &Own{dirs: []ownPath{newOwnPath(s.StateDir, "state_dir"), newOwnPath(s.Keys(), "key_dir")}}
	add := func(path, what string) {
		if path != "" {
			own.files = append(own.files, newOwnPath(path, what))
		}
	}
	add(report.File(), "the configuration file")
	add(s.Control.Socket, "control.socket")
	add(s.Metrics.TextFile, "metrics.textfile")
	for name, iss := range s.Issuers {
		if iss.ACME != nil {
			add(iss.ACME.CAFile, "issuers."+name+".acme.ca_file")
		}
	}
	for path, file := range report.SecretFiles() {
		add(file, "the file of "+path)
	}
	return own
}

// Check refuses a path to install something at that is one of the agent's own, or
// a directory that holds such: directories are replaced as a whole.
func (o *Own) Check(path string) error { return o.Checker()(path) }

// Checker is Own.Check for one run through many paths. It is not kept, since links
// change.
func (o *Own) Checker() func(path string) error {
	var seen lookup
	return func(path string) error { return o.check(path, seen.ownPath(path, "")) }
}

func (o *Own) check(path string, p ownPath) error {
	for _, dir := range o.dirs {
		if p.is(dir) || p.in(dir) {
			return fmt.Errorf("%s is in a directory of the agent itself (%s), where nothing is installed; choose another one", path, dir.what)
		}
		if dir.in(p) {
			return fmt.Errorf("%s holds a directory of the agent itself (%s); choose another one", path, dir.what)
		}
	}
	for _, file := range o.files {
		if p.is(file) {
			return fmt.Errorf("%s is a file of the agent itself (%s), where nothing is installed; choose another one", path, file.what)
		}
		if file.in(p) {
			return fmt.Errorf("%s holds a file of the agent itself (%s); choose another one", path, file.what)
		}
	}
	return nil
}
