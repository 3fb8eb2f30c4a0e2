package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/coordinator/client"
	sharedcli "github.com/certctl/certctl/shared/cli"

	"github.com/certctl/certctl/coordinator/trail"
)

// errTrailBroken makes the exit status.
var errTrailBroken = errors.New("the audit trail is BROKEN")

// Where facts to verify come from.
const (
	fromJournal = "journal"
	fromHistory = "history"
)

// verifying is what one verification is asked to do.
type verifying struct {
	from    uint64
	against []string
	nodes   []string
	source  string
	file    string
	anchors []trail.Anchor
}

// verified is the trail of one place.
type verified struct {
	Source string `json:"source"`
	Node   string `json:"node,omitempty"`
	URL    string `json:"url,omitempty"`
	// Problem is why it could not be verified; Report is empty then.
	Problem string        `json:"problem,omitempty"`
	Report  *trail.Report `json:"report,omitempty"`
	// Missing counts log entries whose facts the node does not have yet.
	Missing uint64 `json:"missing,omitempty"`
	// Note is what the verification could not look at.
	Note string `json:"note,omitempty"`
}

// verification is what "certctl audit verify" prints.
type verification struct {
	Whole bool       `json:"whole"`
	Items []verified `json:"items"`
}

func (p *program) verifyAuditCommand() *cobra.Command {
	v := &verifying{}
	cmd := &cobra.Command{
		Use: "verify", Short: "Verify that the audit trail is what was written", Args: sharedcli.NoArgs,
		Long: `Reads all facts of the audit trail and computes their hashes anew. It says which number
was altered, is missing, or stands in another place, and takes nobody's word for it: not
the server's either.

Whoever can write to all nodes can write another trail from some number on. An anchor, a
number and hash that was kept elsewhere ("certctl audit head"), finds that out: give it
with --against.

Exit status: 0 the trail is whole, 4 it is broken; see docs/reference/audit.md.`,
		Example: `  certctl audit verify
  certctl audit verify --against 1234:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  certctl audit verify --nodes all
  certctl audit verify --source history --from 100000
  certctl audit list --all --oldest --output json > trail.json; certctl audit verify -f trail.json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.verifyAudit(cmd, v) },
	}
	cmd.Flags().Uint64Var(&v.from, "from", 0, "begin with this number (default: the first one, or that which a file or the database begins with)")
	cmd.Flags().StringSliceVar(&v.against, "against", nil, "NUMBER:HASH as \"certctl audit head\" has shown it before; may be repeated")
	cmd.Flags().StringSliceVar(&v.nodes, "nodes", nil, "ids of the nodes whose journals are verified and compared, or all (default: the one that answers)")
	choice(cmd, &v.source, "source", "where the facts come from", fromJournal, fromHistory)
	cmd.Flags().StringVarP(&v.file, "file", "f", "", "verify the facts in a file instead, which \"certctl audit list --all --oldest --output json\" has written; - is standard input")
	cmd.MarkFlagsMutuallyExclusive("file", "nodes")
	cmd.MarkFlagsMutuallyExclusive("file", "source")
	return cmd
}

func (p *program) verifyAudit(cmd *cobra.Command, v *verifying) (err error) {
	if v.anchors, err = parseAnchors(v.against); err != nil {
		return err
	}
	for _, a := range v.anchors {
		if a.Number < v.from {
			return fmt.Errorf("flag --against %d:...: it lies before --from %d, and would not be looked at", a.Number, v.from)
		}
	}
	if v.source == fromHistory && len(v.nodes) > 0 {
		return errors.New("flag --nodes: the history is one for all nodes; leave out one of --nodes and --source history")
	}
	done := &verification{}
	switch {
	case v.file != "":
		one, err := v.verifyFile()
		if err != nil {
			return err
		}
		done.Items = []verified{*one}
	default:
		if done.Items, err = p.verifyServers(cmd, v); err != nil {
			return err
		}
	}
	failed := done.judge()
	if err := p.show(cmd, done, func(out io.Writer, now time.Time) error { return verificationText(out, done, now) }); err != nil {
		return err
	}
	return failed
}

// parseAnchors reads NUMBER:HASH.
func parseAnchors(texts []string) (anchors []trail.Anchor, err error) {
	for _, text := range texts {
		number, hash, ok := strings.Cut(strings.TrimSpace(text), ":")
		a := trail.Anchor{From: "the anchor that was given"}
		if a.Number, err = strconv.ParseUint(number, 10, 64); err == nil && ok {
			a.Hash, err = trail.ParseHash(strings.ToLower(hash))
		}
		if err != nil || !ok || a.Number == 0 || a.Hash.IsZero() {
			return nil, fmt.Errorf("flag --against %.80q: expected NUMBER:HASH, as \"certctl audit head\" shows it", text)
		}
		anchors = append(anchors, a)
	}
	return anchors, nil
}

// judge says what came of all places: broken beats what could not be looked at.
func (d *verification) judge() error {
	var failed error
	for i := range d.Items {
		one := &d.Items[i]
		where := one.Source
		if one.Node != "" {
			where += " of " + one.Node
		}
		switch {
		case one.Report != nil && one.Report.Broken():
			b := one.Report.Breaks[0]
			text := "number " + strconv.FormatUint(b.Number, 10)
			if b.Last > b.Number {
				text = fmt.Sprintf("numbers %d to %d", b.Number, b.Last)
			}
			return fmt.Errorf("%w: %s, %s: %s: %s; docs/operator/audit.md says what now", errTrailBroken, where, text, faultText(b.Fault), b.Detail)
		case failed != nil:
		case one.Problem != "":
			failed = fmt.Errorf("%s was not verified: %s", where, one.Problem)
		case one.Report.ChainedFrom == 0:
			failed = fmt.Errorf("%s was not verified: none of its %s has a hash; %w", where, counted(int(one.Report.Facts), "fact", "facts"), errNotChained)
		}
	}
	d.Whole = failed == nil
	return failed
}

func faultText(f trail.Fault) string {
	return map[trail.Fault]string{
		trail.FaultAltered: "ALTERED", trail.FaultMissing: "MISSING", trail.FaultOrder: "IN ANOTHER PLACE", trail.FaultTwice: "TWICE",
		trail.FaultUnlinked: "AFTER ANOTHER FACT", trail.FaultNoHash: "ITS HASH IS GONE", trail.FaultAnchor: "NOT THE ONE THAT WAS KNOWN", trail.FaultUnread: "UNREADABLE",
	}[f]
}

func verificationText(out io.Writer, d *verification, _ time.Time) error {
	for i := range d.Items {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := verifiedText(out, &d.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

func verifiedText(out io.Writer, one *verified) error {
	pairs := [][2]string{{"source", one.Source}}
	if one.Node != "" {
		pairs = append(pairs, [2]string{"node", one.Node + " (" + one.URL + ")"})
	}
	if one.Problem != "" {
		return facts(out, append(pairs, [2]string{"NOT VERIFIED", one.Problem}))
	}
	r := one.Report
	state := "whole"
	switch {
	case r.Broken():
		state = "BROKEN"
	case r.ChainedFrom == 0:
		state = "NOT CHAINED"
	}
	pairs = append(pairs, [2]string{"trail", state}, [2]string{"facts", fmt.Sprintf("%d, from number %d to %d", r.Facts, r.First, r.Last)})
	if r.NotChained > 0 {
		pairs = append(pairs, [2]string{"not chained", counted(int(r.NotChained), "fact", "facts") + " of before the chain was begun, which nothing protects"})
	}
	if r.Open {
		pairs = append(pairs, [2]string{"verified from", fmt.Sprintf("number %d on; what was before is not in it", r.First)})
	} else if r.ChainedFrom > 0 {
		pairs = append(pairs, [2]string{"chained from", fmt.Sprintf("number %d on", r.ChainedFrom)})
	}
	for _, jump := range r.Jumps {
		pairs = append(pairs, [2]string{"restored", fmt.Sprintf("number %d is the one after %d, by the restore of a state", jump.Number, jump.After)})
	}
	if len(r.Anchors) > 0 {
		var numbers []string
		for _, n := range r.Anchors {
			numbers = append(numbers, strconv.FormatUint(n, 10))
		}
		pairs = append(pairs, [2]string{"as known", "number " + strings.Join(numbers, ", ")})
	}
	if !r.Hash.IsZero() {
		pairs = append(pairs, [2]string{"anchor", fmt.Sprintf("%d:%s", r.Last, r.Hash)})
	}
	if one.Missing > 0 {
		pairs = append(pairs, [2]string{"missing", fmt.Sprintf("the node lacks the facts of %d log entries, and gets them from the others", one.Missing)})
	}
	if one.Note != "" {
		pairs = append(pairs, [2]string{"note", one.Note})
	}
	if err := facts(out, pairs); err != nil || !r.Broken() {
		return err
	}
	var rows [][]string
	for _, b := range r.Breaks {
		number := strconv.FormatUint(b.Number, 10)
		if b.Last > b.Number {
			number += "-" + strconv.FormatUint(b.Last, 10)
		}
		rows = append(rows, []string{number, faultText(b.Fault), b.Detail})
	}
	if err := table(out, []string{"NUMBER", "FAULT", "DETAIL"}, rows); err != nil {
		return err
	}
	if r.MoreBreaks > 0 {
		_, err := fmt.Fprintf(out, "and %d more\n", r.MoreBreaks)
		return err
	}
	return nil
}

// verifyServers verifies what nodes have, of which each is asked by itself.
func (p *program) verifyServers(cmd *cobra.Command, v *verifying) ([]verified, error) {
	ctx := cmd.Context()
	asked, err := p.target.connect()
	if err != nil {
		return nil, err
	}
	defer asked.Close()
	if len(v.nodes) == 0 {
		t := &trailSource{client: asked, history: v.source == fromHistory}
		if err := t.look(ctx); err != nil {
			return nil, err
		}
		one, err := t.verify(ctx, v, nil, newTally(cmd, t.name()))
		if err != nil {
			return nil, err
		}
		return []verified{*one}, nil
	}
	sources, err := p.trailsOf(ctx, asked, v.nodes)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, t := range sources {
			t.close()
		}
	}()
	// All heads first: the trail of each node has to agree with what the others know.
	var heads []trail.Anchor
	for _, t := range sources {
		if t.problem == nil {
			t.problem = t.look(ctx)
		}
		if t.problem == nil && t.head.Number >= v.from && !t.head.Hash.IsZero() {
			heads = append(heads, t.head)
		}
	}
	var list []verified
	for _, t := range sources {
		one := &verified{Source: fromJournal, Node: t.node, URL: t.url}
		if t.problem == nil {
			one, t.problem = t.verify(ctx, v, heads, newTally(cmd, t.name()))
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if t.problem != nil {
			one = &verified{Source: fromJournal, Node: t.node, URL: t.url, Problem: t.problem.Error()}
		}
		list = append(list, *one)
	}
	return list, nil
}

// trailsOf are the journals of some nodes, or all, by what the cluster says of them.
func (p *program) trailsOf(ctx context.Context, asked *client.Client, wanted []string) (sources []*trailSource, err error) {
	members, err := asked.ListMembers(ctx)
	if err != nil {
		return nil, err
	}
	chosen, err := p.target.resolve()
	if err != nil {
		return nil, err
	}
	all := slices.Contains(wanted, "all")
	for i := range members.Items {
		m := &members.Items[i]
		if !all && !slices.Contains(wanted, m.ID) {
			continue
		}
		t := &trailSource{node: m.ID, url: m.URL}
		one := *chosen
		one.Server, one.Others, one.Nodes = m.URL, nil, nil
		if m.URL == "" {
			t.problem = errors.New("it does not say at which URL its API is reached (setting server.url)")
		} else {
			t.client, t.problem = one.client(&p.target)
			t.own = true
		}
		sources = append(sources, t)
	}
	for _, id := range wanted {
		if id != "all" && !slices.ContainsFunc(sources, func(t *trailSource) bool { return t.node == id }) {
			return nil, fmt.Errorf("flag --nodes: no member has the id %q; \"certctl cluster members\" lists them", id)
		}
	}
	return sources, nil
}
