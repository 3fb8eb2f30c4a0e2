package assignment

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/shared/managed"
)

// allowCommands reports commands that the host does not let the centre run.
func (h Host) allowCommands(at string, d *managed.Deployment) error {
	var verify []string
	if d.Verify != nil {
		verify = d.Verify.Command
	}
	var problems []error
	for _, c := range []struct {
		field string
		argv  []string
	}{{"check", d.Check}, {"reload", d.Reload}, {"verify.command", verify}} {
		if len(c.argv) > 0 && !h.allowed(c.argv) {
			problems = append(problems, fmt.Errorf("%s%s: this host does not let the coordinator run this; to allow it, "+
				"add the line \"- command: %s\" below assignments.allow_commands in agent.yaml", at, c.field, flow(c.argv)))
		}
	}
	return errors.Join(problems...)
}

func (h Host) allowed(argv []string) bool {
	for i := range h.Settings.Assignments.AllowCommands {
		if slices.Equal(h.Settings.Assignments.AllowCommands[i].Command, argv) {
			return true
		}
	}
	return false
}

// flow writes a list of texts as JSON, which is a form of YAML too.
func flow(list []string) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(list); err != nil {
		return fmt.Sprintf("%q", list) // texts always have a JSON
	}
	return strings.TrimSpace(b.String())
}

// allowFiles reports files that the host does not let the centre install.
func (h Host) allowFiles(at string, files *managed.Files) error {
	var problems []error
	for _, f := range files.Paths() {
		if err := h.allowPath(f.Path); err != nil {
			problems = append(problems, fmt.Errorf("%sfiles.%s: %w", at, f.Key, err))
		}
	}
	return errors.Join(problems...)
}

// allowPath decides about one file or directory. A path is judged by its text and
// by where it leads: a symbolic link on this host must not lead the centre out of
// what it may write.
func (h Host) allowPath(path string) error {
	plain := filepath.Clean(path)
	switch {
	case !filepath.IsAbs(path) || plain != path && plain != path[:len(path)-1]:
		return fmt.Errorf("cannot use %q; expected an absolute path of this operating system, without \".\", \"..\" and empty steps", path)
	case runtime.GOOS == "windows" && strings.Contains(path[len(filepath.VolumeName(path)):], ":"):
		return fmt.Errorf("cannot use %q; a name with a colon is a stream of another file", path)
	}
	leads, err := config.Resolve(plain)
	if err != nil {
		return fmt.Errorf("cannot tell where %s leads: %w", plain, err)
	}
	for _, own := range []string{h.Settings.StateDir, h.Settings.Keys()} {
		leadsTo, err := config.Resolve(own)
		if err != nil || config.Below(leads, leadsTo) || config.Below(plain, own) || leads == leadsTo {
			return fmt.Errorf("%s is in a directory of the agent itself, where nothing is installed; choose another one", plain)
		}
	}
	outside := ""
	for _, dir := range h.Settings.Assignments.AllowPaths {
		if !config.Below(plain, dir) {
			continue
		}
		leadsTo, err := config.Resolve(dir)
		if err != nil {
			return fmt.Errorf("cannot tell where %s of assignments.allow_paths leads: %w", dir, err)
		}
		if config.Below(leads, leadsTo) {
			return nil
		}
		outside = leads
	}
	if outside != "" {
		return fmt.Errorf("%s leads through a symbolic link to %s, where this host does not let the coordinator write; to allow it, "+
			"add the line \"- %s\" below assignments.allow_paths in agent.yaml, and give that path in the assignment", plain, outside, filepath.Dir(outside))
	}
	return fmt.Errorf("this host does not let the coordinator write %s; to allow it, "+
		"add the line \"- %s\" below assignments.allow_paths in agent.yaml", plain, filepath.Dir(plain))
}
