package standing

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/shared/buildinfo"
)

// Bounds of a bundle. A file that is larger is cut off, and says so.
const (
	maxFile       = 4 << 20
	maxPart       = 16 << 20 // of one node
	partPatience  = 15 * time.Second
	cutNote       = "\n[cut: this file was larger]\n"
	bundleVersion = 1
)

// Files of a node's part.
const (
	fileReport     = "report.json"
	fileSettings   = "settings.yaml"
	fileMetrics    = "metrics.txt"
	fileLog        = "log.jsonl"
	fileGoroutines = "goroutines.txt"
)

var errNotKept = errors.New("this node does not keep it")

// A file of a bundle.
type file struct {
	name string
	body []byte
}

// part is what this node knows about itself. What cannot be had says why in its
// place.
func (s *Service) part() []file {
	encode := func() ([]byte, error) { return json.MarshalIndent(s.Local(), "", "  ") }
	goroutines := func() ([]byte, error) {
		var out bytes.Buffer
		err := pprof.Lookup("goroutine").WriteTo(&out, 1)
		return out.Bytes(), err
	}
	makers := []struct {
		name string
		make func() ([]byte, error)
	}{
		{fileReport, encode}, {fileSettings, s.cfg.Settings}, {fileMetrics, s.metrics},
		{fileLog, s.recent}, {fileGoroutines, goroutines},
	}
	files := make([]file, 0, len(makers))
	for _, m := range makers {
		body, err := []byte(nil), errNotKept
		if m.make != nil {
			body, err = m.make()
		}
		if err != nil {
			body = fmt.Appendf(body, "not available: %v\n", err)
		}
		files = append(files, file{m.name, bounded(body)})
	}
	return files
}

func bounded(body []byte) []byte {
	if len(body) <= maxFile {
		return body
	}
	return append(body[:maxFile-len(cutNote):maxFile-len(cutNote)], cutNote...)
}

func (s *Service) recent() ([]byte, error) {
	if s.cfg.Recent == nil {
		return nil, errNotKept
	}
	lines, dropped := s.cfg.Recent.Text()
	if dropped > 0 {
		head := fmt.Sprintf("{\"msg\":\"%d earlier lines are not kept in memory; the log of the service has them\"}\n", dropped)
		lines = append([]byte(head), lines...)
	}
	return lines, nil
}

func (s *Service) metrics() ([]byte, error) {
	if s.cfg.Metrics == nil {
		return nil, errNotKept
	}
	var out bytes.Buffer
	err := s.cfg.Metrics(&out)
	return out.Bytes(), err
}

// writePart writes this node's part as a tar archive.
func (s *Service) writePart(w io.Writer) error {
	archive := tar.NewWriter(w)
	now := s.cfg.Now()
	for _, f := range s.part() {
		if err := add(archive, f, now); err != nil {
			return err
		}
	}
	return archive.Close()
}

func add(archive *tar.Writer, f file, at time.Time) error {
	header := &tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.body)), ModTime: at.UTC().Truncate(time.Second), Format: tar.FormatPAX}
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("write %s: %w", f.name, err)
	}
	if _, err := archive.Write(f.body); err != nil {
		return fmt.Errorf("write %s: %w", f.name, err)
	}
	return nil
}

// Diagnose writes a bundle for a support case to w, a gzipped tar archive: what
// every member that answers knows about itself, and how the cluster stands as seen
// from here. There are no secrets in it. It needs no leader, takes half a minute at
// most, and has bounds of size.
func (s *Service) Diagnose(ctx context.Context, w io.Writer) error {
	compressed := gzip.NewWriter(w)
	archive := tar.NewWriter(compressed)
	now := s.cfg.Now()
	root := "certctl-diagnosis-" + now.UTC().Format("20060102T150405Z")
	picture := s.look(ctx)

	documents := []document{{"members.json", picture.members()}, {"health.json", picture.health()}}
	contents := []Content{}
	for _, p := range s.parts(ctx, picture.answers) {
		c := Content{Node: p.member.ID, Address: p.member.Address, Directory: path.Join("nodes", safeName(p.member.ID)), Files: []string{}, Error: text(p.err)}
		if slices.ContainsFunc(contents, func(other Content) bool { return other.Directory == c.Directory }) {
			c.Directory += fmt.Sprintf("-%d", len(contents)) // ids that differ in what no directory may have
		}
		for _, f := range p.files {
			if err := add(archive, file{path.Join(root, c.Directory, f.name), f.body}, now); err != nil {
				return err
			}
			c.Files = append(c.Files, f.name)
			c.Bytes += len(f.body)
		}
		contents = append(contents, c)
	}
	documents = append(documents, document{ContentsFile, contents})
	for _, d := range documents {
		body, err := json.MarshalIndent(d.v, "", "  ")
		if err != nil {
			return fmt.Errorf("encode %s: %w", d.name, err)
		}
		if err := add(archive, file{path.Join(root, d.name), body}, now); err != nil {
			return err
		}
	}
	if err := add(archive, file{path.Join(root, "README.txt"), readme(s.cfg.NodeID, now, contents)}, now); err != nil {
		return err
	}
	return errors.Join(archive.Close(), compressed.Close())
}

type document struct {
	name string
	v    any
}

// ContentsFile is the file of a bundle that says what came of each node, as a list
// of Content.
const ContentsFile = "nodes.json"

// Content is what a bundle has of a node.
type Content struct {
	Node      string   `json:"node"`
	Address   string   `json:"address"`
	Directory string   `json:"directory"`
	Files     []string `json:"files"`
	Bytes     int      `json:"bytes"`
	Error     string   `json:"error,omitempty"` // why there is no more
}

func readme(self string, now time.Time, contents []Content) []byte {
	nodes := make([]string, 0, len(contents))
	for _, c := range contents {
		line := fmt.Sprintf("%s at %s: %d files", c.Node, c.Address, len(c.Files))
		if c.Error != "" {
			line += "; NOT COMPLETE: " + c.Error
		}
		nodes = append(nodes, line)
	}
	return fmt.Appendf(nil, `Diagnosis of a certctl coordinator cluster, format %d.

Made by the node %s (%s) at %s.

  members.json   the members as this node sees them
  health.json    what is wrong with the cluster, and what to do about it
  nodes.json     which nodes answered, and with what
  nodes/ID/      what each node says about itself:
    report.json      version, readiness, Raft, journal, snapshots, room on disk, clock
    settings.yaml    the configuration that is in effect; secrets are [redacted]
    metrics.txt      its metrics
    log.jsonl        the newest lines of its log
    goroutines.txt   what its program is doing

It holds no tokens, no private keys and no seal key. It holds names of hosts, nodes
and files, addresses, and whatever the log says.

Nodes:

  %s
`, bundleVersion, self, buildinfo.Get().String(), now.UTC().Format(time.RFC3339), strings.Join(nodes, "\n  "))
}

// safeName makes an id fit to be a directory.
func safeName(id string) string {
	if strings.Trim(id, ".") == "" {
		return "_"
	}
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '_'
	}, id)
}

// gathered is the part of a member: what arrived, and why there is no more.
type gathered struct {
	member cluster.Member
	files  []file
	err    error
}

// parts asks all members at the same time.
func (s *Service) parts(ctx context.Context, answers []Answer) []gathered {
	ctx, cancel := context.WithTimeout(ctx, partPatience)
	defer cancel()
	parts := make([]gathered, len(answers))
	var asking sync.WaitGroup
	for i, a := range answers {
		parts[i].member = a.Member
		asking.Go(func() { parts[i].files, parts[i].err = s.partOf(ctx, a.Member) })
	}
	asking.Wait()
	return parts
}

func (s *Service) partOf(ctx context.Context, member cluster.Member) (files []file, err error) {
	if member.ID == s.cfg.NodeID {
		return s.part(), nil
	}
	body, err := s.open(ctx, member, bundlePath)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return readPart(body)
}

// readPart reads the archive that another node sends. It is not trusted with names
// or sizes.
func readPart(body io.Reader) (files []file, err error) {
	archive := tar.NewReader(io.LimitReader(body, maxPart))
	known := []string{fileReport, fileSettings, fileMetrics, fileLog, fileGoroutines}
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return files, fmt.Errorf("its part broke off: %w", err)
		}
		i := slices.Index(known, header.Name)
		if i < 0 {
			continue // of a later version, or there twice
		}
		known = slices.Delete(known, i, i+1)
		body, err := io.ReadAll(io.LimitReader(archive, maxFile+1))
		if err != nil {
			return files, fmt.Errorf("its part broke off: %w", err)
		}
		files = append(files, file{header.Name, bounded(body)})
	}
}
