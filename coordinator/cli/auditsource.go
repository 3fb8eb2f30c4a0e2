package cli

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/coordinator/trail"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/wire"
)

// trailPatience is how long a node gets to have in its journal, or in the database, what
// its state has: it writes it a moment later.
const trailPatience = 20 * time.Second

var trailPause = backoff.Policy{Initial: 50 * time.Millisecond, Max: time.Second, Multiplier: 2, Jitter: 0.2}

// A trailSource is a node whose audit trail is read, or the history that it has.
type trailSource struct {
	client    *client.Client
	own       bool // the client is closed with it
	history   bool
	node, url string
	problem   error
	head      trail.Anchor // of its state; without a hash if the chain is not begun
	note      string
}

func (t *trailSource) name() string {
	if t.history {
		return fromHistory
	}
	return fromJournal + " of " + t.node
}

func (t *trailSource) close() {
	if t.own && t.client != nil {
		t.client.Close()
	}
}

// look asks for the head of the trail, before any fact is read: what comes in between
// lies behind it.
func (t *trailSource) look(ctx context.Context) error {
	head, err := t.client.ShowAuditHead(ctx)
	if err != nil {
		return err
	}
	if t.node != "" && head.Node != t.node {
		return fmt.Errorf("at its URL %s another node answers, %s", t.url, plain(head.Node))
	}
	t.node, t.url = head.Node, t.client.Answered()
	if head.Hash == "" {
		return errNotChained
	}
	t.head = trail.Anchor{Number: head.Number, From: "the state of " + head.Node}
	if t.head.Hash, err = trail.ParseHash(head.Hash); err != nil {
		return fmt.Errorf("the node shows a hash that is none: %w", err)
	}
	if !t.history {
		return nil
	}
	status, err := t.client.ShowHistoryStatus(ctx)
	if err != nil {
		return err
	}
	if d := status.Database; d != nil && (d.Through < head.Index || d.Missing > 0) {
		t.note = fmt.Sprintf("the export has come to log entry %d, with %d entries missing before it; the head of the trail is of entry %d and was not looked for", d.Through, d.Missing, head.Index)
		t.head = trail.Anchor{}
	}
	return nil
}

// verify reads the trail to its end.
func (t *trailSource) verify(ctx context.Context, v *verifying, heads []trail.Anchor, told *tally) (*verified, error) {
	defer told.end()
	anchors := slices.Concat(v.anchors, heads)
	if len(heads) == 0 && !t.head.Hash.IsZero() && t.head.Number >= v.from {
		anchors = append(anchors, t.head)
	}
	least := v.from
	if least == 0 && !t.history {
		least = 1 // journals never drop any
	}
	out := &verified{Source: fromJournal, Node: t.node, URL: t.url, Note: t.note}
	if t.history {
		out.Source = fromHistory
	}
	verifier := trail.NewVerifier(least, anchors...)
	var until uint64 // the newest number that is known to be there
	for _, a := range anchors {
		until = max(until, a.Number)
	}
	told.of = until
	cursor, from := "", v.from
	for waited, attempt := time.Now(), 1; ; {
		page, err := t.page(ctx, from, cursor)
		if unreadable(err) {
			verifier.Unread("the server cannot read it: " + err.Error())
			break
		}
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			verifier.Add(recordOf(&page.Items[i]))
		}
		told.at(verifier.Last())
		out.Missing = max(out.Missing, page.Missing)
		if cursor = page.NextCursor; cursor != "" {
			continue
		}
		if verifier.Last() >= until || time.Since(waited) > trailPatience {
			break
		}
		from = verifier.Last() + 1
		if err := backoff.Wait(ctx, trailPause.Delay(attempt, nil)); err != nil {
			return nil, err
		}
		attempt++
	}
	out.Report = verifier.End()
	if out.Missing > 0 && !slices.ContainsFunc(out.Report.Breaks, func(b trail.Break) bool { return b.Fault != trail.FaultMissing }) {
		return nil, fmt.Errorf("the node %s lacks the facts of %d log entries, of before it joined or while it was away, and gets them from the others; wait for that, or ask another one with --server", t.node, out.Missing)
	}
	return out, nil
}

// unreadable reports whether the server has the facts and cannot read them, as after
// somebody has written into its files.
func unreadable(err error) bool {
	problem, refused := errors.AsType[*wire.Problem](err)
	return refused && problem.Code == wire.CodeInternal
}

func (t *trailSource) page(ctx context.Context, from uint64, cursor string) (*resource.Events, error) {
	if !t.history {
		return t.client.ListAudit(ctx, client.ListAuditParams{Scope: "audit", Order: "oldest", From: from, Cursor: cursor, Limit: client.PageSize})
	}
	page, err := t.client.ListHistory(ctx, client.ListHistoryParams{Scope: "audit", Order: "oldest", From: from, Cursor: cursor, Limit: client.PageSize})
	if err != nil {
		return nil, err
	}
	return &resource.Events{Page: *page}, nil
}

// recordOf is a fact as the chain covers it.
func recordOf(e *resource.Event) trail.Record {
	return trail.Record{
		Number: e.Audit, Index: e.Index, Ordinal: e.Ordinal, Time: e.Time, Kind: e.Kind, Actor: e.Actor, Object: e.Object, Agent: e.AgentID,
		Detail: e.Detail, Before: e.Before, After: e.After, Prev: hashOf(e.Prev), Hash: hashOf(e.Hash),
	}
}

// hashOf is a hash that is shown. What is none becomes one that no fact has.
func hashOf(text string) trail.Hash {
	if text == "" {
		return trail.Hash{}
	}
	hash, err := trail.ParseHash(text)
	if err != nil || hash.IsZero() {
		return sha256.Sum256([]byte("not a hash: " + text))
	}
	return hash
}

// verifyFile verifies facts that were written into a file.
func (v *verifying) verifyFile() (*verified, error) {
	in := io.Reader(os.Stdin)
	if v.file != "-" {
		f, err := os.Open(v.file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	records, unread, err := readTrail(bufio.NewReader(in))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.file, err)
	}
	if len(records) > 1 && slices.IsSortedFunc(records, func(a, b trail.Record) int { return cmp.Compare(b.Number, a.Number) }) {
		slices.Reverse(records) // "certctl audit list" without --oldest
	}
	verifier := trail.NewVerifier(v.from, v.anchors...)
	for _, r := range records {
		if r.Number >= v.from {
			verifier.Add(r)
		}
	}
	if unread != nil {
		verifier.Unread(unread.Error())
	}
	out := &verified{Source: v.file, Report: verifier.End()}
	if out.Report.Facts == 0 && !out.Report.Broken() {
		return nil, fmt.Errorf("%s: there is no fact of the audit trail in it; \"certctl audit list --all --oldest --output json\" writes them", v.file)
	}
	if len(v.anchors) == 0 {
		out.Note = "without an anchor (--against), facts that are missing at its end are not noticed"
	}
	return out, nil
}

// readTrail reads the facts of the audit trail out of a list of facts. unread is why one
// of them is none.
func readTrail(in io.Reader) (records []trail.Record, unread, err error) {
	const mend = "expected what \"certctl audit list --all --oldest --output json\" writes"
	decoder := json.NewDecoder(in)
	expect := func(want json.Delim) bool {
		token, err := decoder.Token()
		return err == nil && token == want
	}
	if !expect('{') {
		return nil, nil, errors.New(mend)
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, nil, fmt.Errorf("%w; %s", err, mend)
		}
		if name != "items" {
			var other json.RawMessage
			if err := decoder.Decode(&other); err != nil {
				return nil, nil, fmt.Errorf("%w; %s", err, mend)
			}
			continue
		}
		if !expect('[') {
			return nil, nil, errors.New("items is no list; " + mend)
		}
		for decoder.More() {
			var raw json.RawMessage
			if err := decoder.Decode(&raw); err != nil {
				return nil, nil, fmt.Errorf("after %d facts: %w; %s", len(records), err, mend)
			}
			var e resource.Event
			if err := json.Unmarshal(raw, &e); err != nil {
				unread = errors.Join(unread, err)
				continue
			}
			if e.Audit == 0 && e.Hash == "" {
				continue // a routine fact
			}
			records = append(records, recordOf(&e))
		}
		if !expect(']') {
			return nil, nil, errors.New(mend)
		}
	}
	if !expect('}') {
		return nil, nil, errors.New("it ends in the middle; " + mend)
	}
	return records, unread, nil
}

// tally tells a person at a terminal how far a verification is.
type tally struct {
	out  io.Writer // nil: nobody watches
	what string
	of   uint64
	told time.Time
	said bool
}

func newTally(cmd *cobra.Command, what string) *tally {
	t := &tally{what: what, told: time.Now()}
	if errs, ok := cmd.ErrOrStderr().(*os.File); ok && term.IsTerminal(int(errs.Fd())) {
		t.out = errs
	}
	return t
}

func (t *tally) at(number uint64) {
	if t.out == nil || time.Since(t.told) < time.Second {
		return
	}
	t.told, t.said = time.Now(), true
	fmt.Fprintf(t.out, "\r%s: number %d of %d \r", t.what, number, max(t.of, number))
}

func (t *tally) end() {
	if t.said {
		fmt.Fprintf(t.out, "\r\033[K")
	}
}
