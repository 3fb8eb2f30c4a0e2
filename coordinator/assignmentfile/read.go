// Package assignmentfile reads and writes assignments as YAML files, which hold one
// document for each.
package assignmentfile

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/selector"
	"github.com/certctl/certctl/shared/managed"
	"github.com/certctl/certctl/shared/settings"
	"github.com/certctl/certctl/shared/wire"
)

// maxFile bounds one file of assignments, and maxFiles what
// one command reads.
const (
	maxFile  = 4 << 20
	maxFiles = 1000
)

// document is one document of a file of assignments.
type document struct {
	Name        string              `yaml:"name" required:"true" example:"www" doc:"Name of the assignment, and of the certificate on each host."`
	Selector    string              `yaml:"selector" required:"true" example:"env=prod,role in (web,api)" doc:"Which hosts have it, by their labels; * is every host."`
	Revision    uint64              `yaml:"revision" default:"0" doc:"The revision that the change was made to; 0: it is new. Absent: whatever is stored."`
	Certificate managed.Certificate `yaml:"certificate" doc:"The definition, with the keys of an entry of the agent configuration's certificates, but for the name."`
}

// Validate implements settings.Validator.
func (d *document) Validate(report func(string, error)) {
	if !wire.ValidName(d.Name) {
		report("name", fmt.Errorf("%.80q is not a name; expected 1 to %d characters without control characters", d.Name, wire.MaxNameLen))
	}
	if _, err := selector.Parse(d.Selector); err != nil {
		report("selector", err)
	}
}

// Given is an assignment as a file has it.
type Given struct {
	resource.PutAssignment
	Name   string
	file   string
	report *settings.Report
	line   int // how many lines of the file are before the document
}

// Position is where a field of the assignment stands: file, line and column.
func (g *Given) Position(field string) string {
	place := g.report.Problem(field, nil).Origin
	if place.Source != settings.SourceFile {
		place = beginning(g.file)
	}
	place.Line += g.line
	return place.String()
}

// beginning is the place of what nothing in a document mentions.
func beginning(file string) settings.Origin {
	return settings.Origin{Source: settings.SourceFile, File: file, Line: 1, Column: 1}
}

// Read reads files, directories (what ends in .yaml, .yml or .json)
// and, for "-", standard input. Everything that is wrong comes back as one error.
func Read(in io.Reader, paths []string) ([]*Given, error) {
	files, err := filesOf(paths)
	if err != nil {
		return nil, err
	}
	var all []*Given
	var problems []error
	for _, file := range files {
		text, err := readFile(in, file)
		if err == nil {
			var found []*Given
			found, err = Parse(cmp.Or(strings.TrimPrefix(file, "-"), "standard input"), text)
			all = append(all, found...)
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	places := map[string]*Given{}
	for _, g := range all {
		if before := places[g.Name]; before != nil {
			problems = append(problems, fmt.Errorf("%s: name: the assignment %q stands here and in %s; keep one of them", g.Position("name"), g.Name, before.Position("name")))
			continue
		}
		places[g.Name] = g
	}
	switch {
	case len(problems) > 0:
		return nil, errors.Join(problems...)
	case len(all) == 0:
		return nil, fmt.Errorf("there is no assignment in %s; expected documents with name, selector and certificate", strings.Join(paths, ", "))
	case len(all) > fleet.MaxAssignments:
		return nil, fmt.Errorf("there are %d assignments; a coordinator keeps %d", len(all), fleet.MaxAssignments)
	}
	return all, nil
}

// filesOf lists the files that paths stand for.
func filesOf(paths []string) ([]string, error) {
	var files []string
	for _, path := range paths {
		if path == "-" {
			files = append(files, path)
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("flag --file: %w", err)
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, fmt.Errorf("flag --file: %w", err)
		}
		before := len(files)
		for _, entry := range entries {
			if suffix := filepath.Ext(entry.Name()); !entry.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, suffix) {
				files = append(files, filepath.Join(path, entry.Name()))
			}
		}
		if len(files) == before {
			return nil, fmt.Errorf("flag --file: the directory %s holds no .yaml, .yml or .json file", path)
		}
	}
	if len(files) > maxFiles {
		return nil, fmt.Errorf("flag --file: these are %d files; at most %d are read", len(files), maxFiles)
	}
	return files, nil
}

func readFile(in io.Reader, path string) (string, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than %d KiB; it is not the file that was meant", path, maxFile>>10)
	}
	return string(data), err
}

// Parse reads the documents of a text; file names it in errors.
func Parse(file, text string) ([]*Given, error) {
	var all []*Given
	var problems []error
	for _, part := range split(text) {
		given, err := parse(file, part.text)
		if wrong, ok := errors.AsType[*settings.Error](err); ok {
			for _, p := range wrong.Problems {
				if p.Origin.Line == 0 {
					p.Origin = beginning(file)
				}
				p.Origin.Line += part.line
			}
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		given.line = part.line
		all = append(all, given)
	}
	return all, errors.Join(problems...)
}

func parse(file, text string) (*Given, error) {
	d := new(document)
	report, err := settings.Load(d, settings.Options{File: file, Text: []byte(text)})
	if err != nil {
		return nil, err
	}
	given, err := report.Given(d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	g := &Given{Name: d.Name, file: file, report: report}
	g.Selector = d.Selector
	if report.Origin("revision").Source != settings.SourceDefault {
		g.Revision = &d.Revision
	}
	var parts struct {
		Certificate json.RawMessage `json:"certificate"`
	}
	if err := json.Unmarshal(given, &parts); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	g.Certificate = parts.Certificate
	return g, nil
}

// textDocument is one document of a YAML stream, and how many lines are before
// it.
type textDocument struct {
	text string
	line int
}

// split cuts a YAML stream at its markers (YAML 1.2.2, section 9.1.4):
// "---" or "..." at the start of a line, which stand for nothing else wherever
// they are. Documents of comments alone are left out.
func split(text string) []textDocument {
	var all []textDocument
	var open strings.Builder
	begin, something := 0, false
	end := func(next int) {
		if something {
			all = append(all, textDocument{open.String(), begin})
		}
		open.Reset()
		begin, something = next, false
	}
	for number, line := range strings.SplitAfter(strings.TrimPrefix(text, "\ufeff"), "\n") {
		if rest, ok := marker(line); ok {
			end(number)
			line = "   " + rest // what follows the marker keeps its column
		}
		content := strings.TrimSpace(line)
		something = something || content != "" && content[0] != '#'
		open.WriteString(line)
	}
	end(0)
	return all
}

// marker reports whether a line begins with a document's marker, and what
// follows that.
func marker(line string) (rest string, ok bool) {
	for _, mark := range []string{"---", "..."} {
		if rest, ok := strings.CutPrefix(line, mark); ok && (rest == "" || strings.ContainsAny(rest[:1], " \t\r\n")) {
			return rest, true
		}
	}
	return "", false
}
