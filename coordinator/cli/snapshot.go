package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/coordinator/snapshotfile"
	sharedcli "github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/durable"
)

// maxSnapshot bounds what is fetched, in octets.
const maxSnapshot = 16 << 30

func (p *program) snapshotCommand() *cobra.Command {
	return group(&cobra.Command{
		Use: "snapshot", Short: "Save, look at and restore all that the coordinators know",
		Long: `A snapshot is one file with all that the coordinators know, but for two things that
have to be kept by themselves: the seal key, without which the private keys in the
file cannot be used, and the journal, which is the history and the audit trail.`,
	}, p.saveSnapshotCommand(), p.inspectSnapshotCommand(), p.restoreSnapshotCommand())
}

// savedSnapshot is what save and inspect tell.
type savedSnapshot struct {
	File      string `json:"file"`
	Size      int64  `json:"size"` // of the file
	Encrypted bool   `json:"encrypted"`
	resource.Snapshot
}

func (p *program) saveSnapshotCommand() *cobra.Command {
	var force, stale bool
	var sealing encryption
	cmd := &cobra.Command{
		Use: "save FILE", Short: "Save a snapshot to a file", Args: sharedcli.ExactArgs(1), ValidArgsFunction: firstArgument(completeFiles),
		Long: `Saves a snapshot. The file is checked to its end before it gets its name; nobody but
you may read it. Private keys are in it only as the coordinators keep them, sealed;
the inventory of the fleet can be read in it unless it is encrypted. Encryption is
that of age (age-encryption.org) and happens here.`,
		Example: `  certctl snapshot save monday.snapshot
  certctl snapshot save monday.snapshot.age --encrypt-to age1...
  certctl snapshot save monday.snapshot.age --passphrase-file passphrase.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := sealing.to(cmd)
			if err != nil {
				return err
			}
			saved, err := p.saveSnapshot(cmd, args[0], stale, to, force)
			if err != nil {
				return err
			}
			return p.showSnapshot(cmd, saved)
		},
	}
	sealing.bind(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that is there")
	cmd.Flags().BoolVar(&stale, "stale", false, "save what the node that answers knows, although no leader confirms that it is everything")
	return cmd
}

func (p *program) saveSnapshot(cmd *cobra.Command, path string, stale bool, to []age.Recipient, force bool) (_ *savedSnapshot, err error) {
	switch _, err := os.Lstat(path); {
	case err == nil && !force:
		return nil, fmt.Errorf("%s is there already; give another name, or --force to replace it", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	c, err := p.target.connect()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	file, err := durable.Create(path, durable.Ownership{UID: durable.Keep, GID: durable.Keep, Mode: 0o600})
	if err != nil {
		return nil, err
	}
	finished := false
	defer func() {
		if !finished {
			err = errors.Join(err, file.Discard())
		}
	}()
	written := &summedFile{w: file, sum: sha256.New()}
	out := io.WriteCloser(nopCloser{written})
	if len(to) > 0 {
		if out, err = age.Encrypt(written, to...); err != nil {
			return nil, fmt.Errorf("encrypt: %w", err)
		}
	}
	summary, err := checkedCopy(out, func(w io.Writer) error {
		return c.SaveSnapshot(cmd.Context(), client.SaveSnapshotParams{Stale: stale}, newProgress(cmd, w, "fetched"), maxSnapshot)
	})
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		return nil, err
	}
	finished = true
	if err := file.Commit(written.same); err != nil {
		return nil, err
	}
	return &savedSnapshot{File: path, Size: written.n, Encrypted: len(to) > 0, Snapshot: snapshotOf(summary)}, nil
}

// checkedCopy lets fetch write a snapshot, and passes on what it writes while it
// checks it. It is whole when there is no error.
func checkedCopy(out io.Writer, fetch func(w io.Writer) error) (snapshotfile.Summary, error) {
	reader, writer := io.Pipe()
	type result struct {
		summary snapshotfile.Summary
		err     error
	}
	checked := make(chan result, 1)
	go func() {
		summary, err := snapshotfile.Check(reader)
		_ = reader.CloseWithError(err) // always nil
		checked <- result{summary, err}
	}()
	err := fetch(io.MultiWriter(out, writer))
	_ = writer.CloseWithError(err) // always nil; without an error it is the end
	r := <-checked
	if r.err != nil && (err == nil || errors.Is(err, r.err)) {
		return snapshotfile.Summary{}, fmt.Errorf("what the coordinator sent is not good: %w", r.err)
	}
	return r.summary, err
}

type nopCloser struct{ io.Writer }

// Close implements io.Closer.
func (nopCloser) Close() error { return nil }

// summedFile remembers what was written, to compare it with what is on the disk.
type summedFile struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

// Write implements io.Writer.
func (s *summedFile) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.sum.Write(b[:n])
	s.n += int64(n)
	return n, err
}

func (s *summedFile) same(r io.Reader) error {
	stored := sha256.New()
	if _, err := io.Copy(stored, r); err != nil {
		return err
	}
	if hex.EncodeToString(stored.Sum(nil)) != hex.EncodeToString(s.sum.Sum(nil)) {
		return errors.New("the disk gives back something else than was written; use another one")
	}
	return nil
}

func snapshotOf(s snapshotfile.Summary) resource.Snapshot {
	out := resource.Snapshot{
		ClusterID: s.ClusterID, NodeID: s.NodeID, Index: s.Index, Time: s.Time, Version: s.Version, Level: s.Level,
		SealKeys: s.SealKeys, Rows: s.Rows, SHA256: s.SHA256,
	}
	if out.SealKeys == nil {
		out.SealKeys = []string{}
	}
	if out.Rows == nil {
		out.Rows = map[string]int{}
	}
	return out
}

func (p *program) inspectSnapshotCommand() *cobra.Command {
	var opening decryption
	cmd := &cobra.Command{
		Use: "inspect FILE", Short: "Check a snapshot file and show what is in it", Args: sharedcli.ExactArgs(1), ValidArgsFunction: firstArgument(completeFiles),
		Long: `Reads a snapshot file to its end, without any coordinator, and shows what it is of.

Exit status: 0 the file is whole, 1 it is not.`,
		Example: `  certctl snapshot inspect monday.snapshot
  certctl snapshot inspect monday.snapshot.age --identity-file key.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			saved, _, err := inspectSnapshot(cmd, args[0], &opening)
			if err != nil {
				return err
			}
			return p.showSnapshot(cmd, saved)
		},
	}
	opening.bind(cmd)
	return cmd
}

// inspectSnapshot reads a file to its end. The identities open it again.
func inspectSnapshot(cmd *cobra.Command, path string, opening *decryption) (*savedSnapshot, []age.Identity, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	identities, err := opening.key(cmd, path)
	if err != nil {
		return nil, nil, err
	}
	in, file, err := openSnapshot(path, identities)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	summary, err := snapshotfile.Check(in)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return &savedSnapshot{File: path, Size: info.Size(), Encrypted: len(identities) > 0, Snapshot: snapshotOf(summary)}, identities, nil
}

func (p *program) showSnapshot(cmd *cobra.Command, s *savedSnapshot) error {
	return p.show(cmd, s, func(out io.Writer, now time.Time) error {
		const history = "not in it: the journal and its audit trail stay on the nodes"
		encrypted := "no"
		if s.Encrypted {
			encrypted = "yes"
		}
		if err := facts(out, [][2]string{
			{"file", s.File}, {"size", octetsText(s.Size)}, {"encrypted", encrypted},
			{"cluster", s.ClusterID}, {"taken", moment(s.Time, now)}, {"by", s.NodeID + ", certctl " + s.Version},
			{"log index", strconv.FormatUint(s.Index, 10)}, {"seal key", strings.Join(s.SealKeys, ", ")}, {"SHA-256", s.SHA256},
			{"history", history},
		}); err != nil {
			return err
		}
		var rows [][]string
		for _, table := range slices.Sorted(maps.Keys(s.Rows)) {
			rows = append(rows, []string{table, strconv.Itoa(s.Rows[table])})
		}
		fmt.Fprintln(out)
		return table(out, []string{"TABLE", "RECORDS"}, rows)
	})
}

func octetsText(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d octets", n)
}

// progress tells a person at a terminal how far a transfer is.
type progress struct {
	w    io.Writer
	out  io.Writer // nil: nobody watches
	what string
	n    int64
	told time.Time
}

func newProgress(cmd *cobra.Command, w io.Writer, what string) *progress {
	p := &progress{w: w, what: what, told: time.Now()}
	if errs, ok := cmd.ErrOrStderr().(*os.File); ok && term.IsTerminal(int(errs.Fd())) {
		p.out = errs
	}
	return p
}

// Write implements io.Writer.
func (p *progress) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.n += int64(n)
	if p.out != nil && time.Since(p.told) > time.Second {
		p.told = time.Now()
		fmt.Fprintf(p.out, "\r%s %s \r", p.what, octetsText(p.n))
	}
	return n, err
}
