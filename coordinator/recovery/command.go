package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/durable"
)

// defaultEntries is how many of the newest entries a report describes.
const defaultEntries = 4096

// Command is the verb recover, for the coordinator's own program. It finds the
// data directory as run does.
func Command(source *cli.Source) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Recover a cluster that has lost its majority for good",
		Long: `A cluster goes on by itself while a majority of its voters runs. When a majority is
lost for good, nobody can decide any more, and a person has to: look at what each
surviving node has (inspect), compare (plan), and make the best one a cluster of one
(run), which new nodes then join.

All of it works on stopped nodes. Only run changes anything.`,
		Example: `  certctl-coordinator recover inspect --output json > node-a.json
  certctl-coordinator recover plan node-a.json node-b.json
  certctl-coordinator recover run --dry-run`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(inspectCommand(source), planCommand(), runCommand(source))
	return cmd
}

// load opens the data directory that the settings name.
func load(cmd *cobra.Command, source *cli.Source) (*node, error) {
	s := new(config.Settings)
	report, err := source.Load(s)
	if err != nil {
		return nil, err
	}
	for _, warning := range report.Warnings() {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", warning)
	}
	return openNode(s, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn})))
}

func inspectCommand(source *cli.Source) *cobra.Command {
	var output cli.Output
	entries := defaultEntries
	cmd := &cobra.Command{
		Use: "inspect", Short: "Show what this stopped node has", Args: cli.NoArgs,
		Long: `Reads the data directory of this node, which must not run, and changes nothing.

With --output json it is the report that "recover plan" compares. It holds no secret:
indexes, terms and checksums of log entries, kinds of changes, ids of agents.

Exit status: 0 the node can be recovered from, 1 it cannot, or something is wrong.`,
		Example: `  certctl-coordinator recover inspect
  certctl-coordinator recover inspect --output json > node-a.json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if entries < 0 {
				return fmt.Errorf("flag --entries %d: expected 0 or more", entries)
			}
			n, err := load(cmd, source)
			if err != nil {
				return err
			}
			report, err := n.inspect(entries)
			if err != nil {
				return err
			}
			err = output.Write(cmd.OutOrStdout(), report, report.write)
			if err == nil && report.StateProblem != "" {
				err = fmt.Errorf("this node cannot be recovered from: %s", report.StateProblem)
			}
			return err
		},
	}
	output.Bind(cmd, cmd.Flags())
	cmd.Flags().IntVar(&entries, "entries", entries, "describe so many of the newest log entries")
	return cmd
}

func planCommand() *cobra.Command {
	var output cli.Output
	cmd := &cobra.Command{
		Use: "plan REPORT...", Short: "Compare the surviving nodes and say which to recover from", Args: cobra.MinimumNArgs(1),
		Long: `Compares the reports of "recover inspect --output json", one of each surviving node.
It says whether there is anything to recover, which node has the newest log by Raft's
own rule, what only one of the nodes has, and what may be lost in any case: changes
that were acknowledged by nodes of which none is left.

Exit status: 0 there is a node to recover from, 1 there is none, or nothing to recover.`,
		Example: `  certctl-coordinator recover plan node-a.json node-b.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var reports []*Report
			for _, path := range args {
				report, err := readReportFile(path)
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				reports = append(reports, report)
			}
			c, err := Compare(reports)
			if err != nil {
				return err
			}
			err = output.Write(cmd.OutOrStdout(), c, c.write)
			switch {
			case err != nil:
				return err
			case c.Quorum:
				return errors.New("there is nothing to recover: a majority has survived; start these nodes")
			case c.Choose == "":
				return errors.New("no survivor can be recovered from")
			}
			return nil
		},
	}
	output.Bind(cmd, cmd.Flags())
	return cmd
}

func readReportFile(path string) (*Report, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return ReadReport(file)
}

// outcome is what run did, or would do.
type outcome struct {
	DryRun    bool             `json:"dry_run"`
	Continued bool             `json:"continued,omitempty"` // a recovery that was cut off
	Already   bool             `json:"already,omitempty"`   // there was nothing to do: Recovery is the one of before
	Recovery  cluster.Recovery `json:"recovery"`
	// Before is what the node had.
	Before *Report `json:"before,omitempty"`
	// Undecided are the entries of which this node does not know whether they were
	// committed; they are kept.
	Undecided Range `json:"undecided"`
}

func runCommand(source *cli.Source) *cobra.Command {
	var output cli.Output
	var dry, yes, newJournal bool
	var address string
	cmd := &cobra.Command{
		Use: "run", Short: "Make this node a cluster of one, with all that it has", Args: cli.NoArgs,
		Long: `Makes this stopped node a cluster of its own. Everything in its log counts as committed
from then on, whether a majority ever had it or not; what only the lost nodes had is
lost. The other members are forgotten: they join again with empty data directories.

Never do this while a majority may come back, nor on two nodes: there would be two
clusters that each believe to be the one. For the same reason never start a lost node
with its old data again. A node that was recovered already is left as it is.

What is replaced stays beside it in the data directory, in raft.before-recovery-TIME,
until you remove it. A run that is cut off is finished by running it again.

A journal that is damaged or missing stops a recovery. --new-journal puts it aside, as
journal.db.before-recovery-TIME, and begins a new one: its facts are lost to this node,
and the audit trail has a gap.`,
		Example: `  certctl-coordinator recover run --dry-run
  certctl-coordinator recover run --yes`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dry && yes {
				return errors.New("give one of --dry-run and --yes")
			}
			n, err := load(cmd, source)
			if err != nil {
				return err
			}
			n.newJournal = newJournal
			out, err := n.recover(cmd.Context(), address, dry, yes)
			if err != nil {
				return err
			}
			return output.Write(cmd.OutOrStdout(), out, func(w io.Writer) error { return out.write(w, n.settings.DataDir) })
		},
	}
	output.Bind(cmd, cmd.Flags())
	flags := cmd.Flags()
	flags.BoolVar(&dry, "dry-run", false, "say what would be done, and change nothing")
	flags.BoolVar(&yes, "yes", false, "do it")
	flags.BoolVar(&newJournal, "new-journal", false, "begin a new journal if the present one cannot be opened")
	flags.StringVar(&address, "address", "", "address by which other nodes will reach this one (default the one that it had)")
	return cmd
}

// recover does it, unless it is dry; it continues what was cut off before.
func (n *node) recover(ctx context.Context, address string, dry, yes bool) (*outcome, error) {
	pending, begun, err := cluster.PendingRecovery(n.settings.DataDir)
	if err != nil {
		return nil, err
	}
	if begun {
		if dry || !yes {
			return nil, fmt.Errorf("%w (it keeps the old state in %s)", cluster.ErrRecovering, filepath.Join(n.settings.DataDir, pending.Kept))
		}
		return &outcome{Continued: true, Recovery: pending}, n.run(ctx, pending)
	}
	last, recovered, err := cluster.LastRecovery(n.settings.DataDir)
	if err != nil {
		return nil, err
	}
	report, err := n.inspect(defaultEntries)
	if err != nil {
		return nil, err
	}
	if recovered && report.soundAlone(address) {
		return &outcome{DryRun: dry, Already: true, Recovery: last.Recovery, Before: report}, nil
	}
	switch {
	case report.StateProblem != "":
		return nil, fmt.Errorf("this node cannot be recovered from: %s", report.StateProblem)
	case report.JournalProblem != "" && !n.newJournal:
		return nil, fmt.Errorf("the journal: %s; without one, --new-journal begins anew", report.JournalProblem)
	case report.SealKeyProblem != "":
		return nil, fmt.Errorf("this node could not use what it has: %s", report.SealKeyProblem)
	}
	if address == "" {
		address = report.ownAddress()
	}
	plan := cluster.PlanRecovery(&report.Report, address, n.now())
	out := &outcome{DryRun: dry, Recovery: plan, Before: report, Undecided: describe(report, report.Committed+1, report.LastIndex)}
	switch {
	case dry:
		return out, nil
	case !yes:
		return nil, errors.New("this cannot be taken back once other nodes have joined; look with --dry-run, and say --yes if you mean it")
	}
	return out, n.run(ctx, plan)
}

func (n *node) run(ctx context.Context, plan cluster.Recovery) (err error) {
	// What another user made here, the coordinator could not open.
	if err := durable.CheckPrivateDir(n.settings.DataDir); err != nil {
		return fmt.Errorf("run this as the user that the coordinator runs as: %w", err)
	}
	journal, err := n.openJournal()
	if err != nil && n.newJournal && !errors.Is(err, history.ErrInUse) {
		journal, err = n.replaceJournal(plan.Time)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	return cluster.Recover(ctx, n.clusterConfig(journal), plan)
}

// replaceJournal puts a journal that cannot be opened aside and begins a new one.
// A crash in between leaves none, which is replaced by the next run.
func (n *node) replaceJournal(at time.Time) (*history.Journal, error) {
	c := n.journalConfig()
	aside := c.Path + ".before-recovery-" + at.UTC().Format("20060102T150405Z")
	if _, err := os.Lstat(aside); err == nil {
		return nil, fmt.Errorf("%s is there already; move it away", aside)
	}
	if err := durable.Rename(c.Path, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("put the journal aside: %w", err)
	}
	return history.Create(c)
}

// ownAddress is the one that the node had in its cluster. A node alone is not
// connected to, and says where it is to be found when it starts.
func (r *Report) ownAddress() string {
	for _, server := range r.Configuration {
		if server.ID == r.NodeID {
			return server.Address
		}
	}
	return r.NodeID
}

// soundAlone reports whether the node is a cluster of one already, at the address
// if one is given, and nothing of it is damaged.
func (r *Report) soundAlone(address string) bool {
	return r.StateProblem == "" && r.JournalProblem == "" && r.SealKeyProblem == "" &&
		!slices.ContainsFunc(r.Snapshots, func(s cluster.SnapshotReport) bool { return s.Problem != "" }) &&
		len(r.Configuration) == 1 && r.Configuration[0].ID == r.NodeID && r.Configuration[0].Voter &&
		(address == "" || address == r.Configuration[0].Address)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.UTC().Format(time.RFC3339)
}
