package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"
)

func (p *program) restoreSnapshotCommand() *cobra.Command {
	var opening decryption
	var dry, yes bool
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Replace all that the coordinators know by a snapshot", Args: sharedcli.ExactArgs(1), ValidArgsFunction: firstArgument(completeFiles),
		Long: `Replaces the state of the cluster by that of a snapshot. First the coordinator checks
the whole file and tells what would vanish, appear and change, by its kind and name, and
whether the cluster's seal key opens the private keys in it; then you are asked, or --yes
answers.

The cluster keeps its nodes, its own CA, its join tokens and your API token. What was changed since the snapshot is
lost: enrolments, tokens, assignments, revocations. Hosts that enrolled since then have
to enrol again; what the others have, they report again by themselves. No host loses a
certificate by it.

Exit status: 0 it was restored, or a dry run found that it could be; 1 not; 2 the
coordinator cannot be reached.`,
		Example: `  certctl snapshot restore monday.snapshot --dry-run
  certctl snapshot restore monday.snapshot --dry-run --output json |
      jq -r '.preview.changes[] | select(.kind == "agents").vanish.items[].name'
  certctl snapshot restore monday.snapshot
  certctl snapshot restore monday.snapshot --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if dry && yes {
				return errors.New("give one of --dry-run and --yes")
			}
			_, identities, err := inspectSnapshot(cmd, args[0], &opening)
			if err != nil {
				return err
			}
			tried, err := p.sendSnapshot(cmd, args[0], identities, client.RestoreSnapshotParams{DryRun: true})
			if err != nil {
				return err
			}
			if dry || p.output.Human() {
				if err := p.showRestored(cmd, tried); err != nil {
					return err
				}
			}
			if tried.Preview != nil && tried.Preview.Refusal != "" {
				return fmt.Errorf("it would be refused: %s", tried.Preview.Refusal)
			}
			if dry {
				return nil
			}
			if err := confirm(cmd, yes); err != nil {
				return err
			}
			done, err := p.sendSnapshot(cmd, args[0], identities, client.RestoreSnapshotParams{Confirm: tried.ClusterID})
			if err != nil {
				return err
			}
			return p.show(cmd, done, func(out io.Writer, _ time.Time) error {
				_, err := fmt.Fprintf(out, "restored: the cluster is at log index %d\n", done.Index)
				return err
			})
		},
	}
	opening.bind(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "check the file and say what would be lost, and change nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func (p *program) sendSnapshot(cmd *cobra.Command, path string, identities []age.Identity, params client.RestoreSnapshotParams) (*resource.Restored, error) {
	c, err := p.target.connect()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	in, file, err := openSnapshot(path, identities)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sent := newProgress(cmd, io.Discard, "sent")
	return c.RestoreSnapshot(cmd.Context(), params, io.TeeReader(in, sent))
}

func (p *program) showRestored(cmd *cobra.Command, r *resource.Restored) error {
	return p.show(cmd, r, func(out io.Writer, now time.Time) error {
		const same = "stays as it is, and goes on with the restore"
		history := "stays that of this cluster; that of the other one is not in a snapshot"
		lost := "everything that this cluster has: the snapshot is of another one, " + r.Snapshot.ClusterID
		if r.Snapshot.ClusterID == r.ClusterID {
			lost, history = fmt.Sprintf("%d changes since then", r.LostChanges), same
		}
		pairs := [][2]string{
			{"cluster", fmt.Sprintf("%s, at log index %d", r.ClusterID, r.Index)},
			{"snapshot", fmt.Sprintf("%s, by %s, at log index %d", moment(r.Snapshot.Time, now), r.Snapshot.NodeID, r.Snapshot.Index)},
			{"lost", lost}, {"history", history},
		}
		if r.Preview == nil { // a coordinator of an earlier version
			if err := facts(out, pairs); err != nil {
				return err
			}
			return restoredRows(out, r)
		}
		if err := facts(out, append(pairs, previewFacts(r)...)); err != nil {
			return err
		}
		return showPreview(out, r.Preview)
	})
}

func previewFacts(r *resource.Restored) [][2]string {
	opens := "opens the private keys in it"
	if !r.Preview.SealKeyOpens {
		opens = "DOES NOT OPEN the private keys in it"
	}
	pairs := [][2]string{{"seal key", opens}}
	if r.Snapshot.ClusterID == r.ClusterID {
		most := ""
		if r.Preview.LostFactsMore {
			most = "more than "
		}
		pairs = append(pairs, [2]string{"journal", fmt.Sprintf("%s%s since then, %d of the audit trail: they stay in it, and what they tell of is undone",
			most, counted(int(r.Preview.LostFacts), "fact", "facts"), r.Preview.LostAudit)}) //nolint:gosec // bounded by the coordinator
	}
	return append(pairs, [2]string{"kept", "the cluster's nodes, its own CA, its join tokens, and your API token"})
}

func restoredRows(out io.Writer, r *resource.Restored) error {
	tables := map[string]bool{}
	for _, rows := range []map[string]int{r.Rows, r.Snapshot.Rows} {
		for table := range rows {
			tables[table] = true
		}
	}
	var rows [][]string
	for _, table := range slices.Sorted(maps.Keys(tables)) {
		rows = append(rows, []string{table, strconv.Itoa(r.Rows[table]), strconv.Itoa(r.Snapshot.Rows[table])})
	}
	fmt.Fprintln(out)
	return table(out, []string{"TABLE", "NOW", "SNAPSHOT"}, rows)
}

// shownRecords is how many records of one kind a person is shown by name.
const shownRecords = 10

// showPreview writes what would become of the state: how many of each kind, then
// which.
func showPreview(out io.Writer, preview *resource.RestorePreview) error {
	var rows [][]string
	for _, c := range preview.Changes {
		rows = append(rows, []string{c.Kind, strconv.Itoa(c.Vanish.Count), strconv.Itoa(c.Appear.Count), strconv.Itoa(c.Change.Count), strconv.Itoa(c.Same)})
	}
	fmt.Fprintln(out)
	if err := table(out, []string{"KIND", "VANISH", "APPEAR", "CHANGE", "STAY"}, rows); err != nil {
		return err
	}
	for _, c := range preview.Changes {
		what := strings.ReplaceAll(c.Kind, "_", " ")
		if c.Reported {
			what += " (agents report theirs again)"
		}
		for _, list := range []struct {
			word string
			of   resource.RestoredRecords
		}{{"vanish", c.Vanish}, {"appear", c.Appear}, {"change", c.Change}} {
			if err := showRecords(out, what+" that "+list.word, list.of); err != nil {
				return err
			}
		}
	}
	return nil
}

func showRecords(out io.Writer, title string, list resource.RestoredRecords) error {
	if list.Count == 0 {
		return nil
	}
	fmt.Fprintf(out, "\n%s:\n", title)
	shown := list.Items[:min(len(list.Items), shownRecords)]
	for _, record := range shown {
		line := plain(record.ID)
		if record.Name != "" {
			line += "  " + plain(record.Name)
		}
		fmt.Fprintln(out, "  "+line)
	}
	if more := list.Count - len(shown); more > 0 {
		fmt.Fprintf(out, "  and %d more (--output json)\n", more)
	}
	return nil
}
