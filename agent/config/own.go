package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
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

func newOwnPath(path, what string) ownPath {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	p := ownPath{plain: path, leads: path, what: what}
	if leads, err := leadsTo(path); err == nil {
		p.leads = leads
	}
	return p
}

// is reports whether two paths are the same one.
func (p ownPath) is(other ownPath) bool {
	return samePath(p.plain, other.plain) || samePath(p.leads, other.leads)
}

// in reports whether a path is below a directory.
func (p ownPath) in(dir ownPath) bool { return inDir(p.plain, dir.plain) || inDir(p.leads, dir.leads) }

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
	for _, v := range report.Values() {
		add(v.Origin.SecretFile, "the file of "+v.Path)
	}
	return own
}

// Check refuses a path to install something at that is one of the agent's own, or
// a directory that holds such: directories are replaced as a whole.
func (o *Own) Check(path string) error {
	p := newOwnPath(path, "")
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

// inDir reports whether path is in dir, at any depth.
func inDir(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != "." && filepath.IsLocal(rel)
}

// leadsTo follows the symbolic links of as much of a path as exists. A link that
// leads to nothing is an error: what is written through it comes into being there.
func leadsTo(path string) (string, error) {
	rest := ""
	for at := filepath.Clean(path); ; at = filepath.Dir(at) {
		_, err := os.Lstat(at)
		if err == nil {
			leadsTo, err := filepath.EvalSymlinks(at)
			if err != nil {
				return "", err
			}
			return filepath.Join(leadsTo, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if at == filepath.Dir(at) {
			return filepath.Join(at, rest), nil
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}
