package settings

import (
	"fmt"
	"strings"
)

// Source is one of the places that a setting's value can come from. A greater Source wins over a lesser one.
type Source int

// The sources, in the order in which they are applied.
const (
	SourceDefault Source = iota
	SourceFile
	SourceEnvironment
	SourceFlag
)

// String returns "default", "file", "environment" or "flag".
func (s Source) String() string {
	switch s {
	case SourceFile:
		return "file"
	case SourceEnvironment:
		return "environment"
	case SourceFlag:
		return "flag"
	default:
		return "default"
	}
}

// Origin says where a value came from. The zero Origin is the default.
type Origin struct {
	Source Source
	// File, Line and Column are the place in the YAML file; Line and Column count from 1, Column in characters. Line is 0
	// if the problem is the file as a whole.
	File         string
	Line, Column int
	// Name is the environment variable or the flag's path.
	Name string
	// SecretFile is the file that a Secret was read from, if it was.
	SecretFile string
}

// String describes the origin in a few words: "default", "agent.yaml:3:5", "environment CERTCTL_STATE_DIR".
func (o Origin) String() string {
	text := o.place()
	if text == "" {
		text = "default"
	}
	if o.SecretFile != "" {
		text += " (read from " + o.SecretFile + ")"
	}
	return text
}

// place is the location alone, "" for a default.
func (o Origin) place() string {
	switch o.Source {
	case SourceFile:
		if o.Line == 0 {
			return o.File
		}
		return fmt.Sprintf("%s:%d:%d", o.File, o.Line, o.Column)
	case SourceEnvironment, SourceFlag:
		return o.Source.String() + " " + o.Name
	default:
		return ""
	}
}

// rank orders problems: those with a place first, in the order in which sources are read.
func (o Origin) rank() int {
	if o.Source == SourceDefault {
		return 3
	}
	return int(o.Source) - 1
}

// Value is the final value of one setting.
type Value struct {
	// Path is the full dotted path, with list indexes: "certificates[0].names".
	Path string
	// Text is the value in the form of the environment; "[redacted]" for a secret that is set.
	Text string
	// Origin is where the value came from.
	Origin Origin
}

// Report says how a configuration came about. It does not change after Load returned it and may be used by several
// goroutines.
type Report struct {
	origins  map[string]Origin
	values   func() []Value // listed when they are asked for: many settings, and few who ask
	warnings []string
	file     string
	fileRead bool
}

// File is the path of the configuration file, whether it was there or not; "" without one.
func (r *Report) File() string { return r.file }

// FileRead reports whether the configuration file was there.
func (r *Report) FileRead() bool { return r.fileRead }

// Warnings lists what is not wrong but has no effect, such as misspelt environment variables; one sentence each.
func (r *Report) Warnings() []string { return r.warnings }

// Values lists every setting of the final configuration with its origin, in the order of the struct.
func (r *Report) Values() []Value {
	if r.values == nil {
		return nil
	}
	return r.values()
}

// SecretFiles are the files that secrets were read from, by the paths of the settings.
func (r *Report) SecretFiles() map[string]string {
	files := make(map[string]string)
	for path, origin := range r.origins {
		if origin.SecretFile != "" {
			files[path] = origin.SecretFile
		}
	}
	return files
}

// Text returns the value of the setting at path in the form of the environment, "" if the configuration has none there.
// After a failed Load it is what those sources gave that could be read, else the default.
func (r *Report) Text(path string) string {
	for _, v := range r.Values() {
		if v.Path == path {
			return v.Text
		}
	}
	return ""
}

// Origin returns where the value at path came from; the zero Origin (default) if no source mentions it.
func (r *Report) Origin(path string) Origin { return r.origins[path] }

// Position returns the place to name in a message about path: "agent.yaml:3:5", "environment CERTCTL_STATE_DIR" or
// "flag state_dir". A setting that no source mentions has the place of its closest section that one does, else "".
func (r *Report) Position(path string) string { return r.closest(path).place() }

// Problem returns err as a problem with the setting at path, for checks that only other packages can make.
func (r *Report) Problem(path string, err error) *Problem {
	return &Problem{Path: path, Origin: r.closest(path), Err: err}
}

// closest looks for the origin of path, then of what encloses it.
func (r *Report) closest(path string) Origin {
	for path != "" {
		if origin, ok := r.origins[path]; ok {
			return origin
		}
		path = enclosing(path)
	}
	return Origin{}
}

// enclosing cuts the last step from a path: a[0].b, a[0], a; a["x.y"] becomes a.
func enclosing(path string) string {
	if strings.HasSuffix(path, `"]`) {
		return path[:max(strings.LastIndex(path, `["`), 0)]
	}
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

// isWithin reports whether path is root or lies below it.
func isWithin(path, root string) bool {
	rest, ok := strings.CutPrefix(path, root)
	return ok && (root == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}
