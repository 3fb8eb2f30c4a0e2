//go:build unix

package crashtest

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
	"github.com/certctl/certctl/shared/wire"
)

// observe looks at every program and its files, as at each durable step.
//
// While no deployment to a place is open, both are the pair that was verified
// there last: after an attempt that failed the one from before it, until the next
// attempt changes something. While one is open, by an attempt that is at it or by
// a crash in the middle of one, on the way forth or back, the program serves a
// pair of ours, and the old one until it has been told of another; on disk lies a
// whole pair, the old one or the new. Separate files cannot change together:
// between their renames they may be of two pairs, then and only then.
func (w *world) observe(label string) {
	issued := w.ca.fingerprints()
	if w.standIn != nil {
		for fingerprint := range w.standIn.fingerprints() {
			issued[fingerprint] = true
		}
	}
	if w.centre != nil {
		w.centre.issued(issued)
	}
	for _, p := range w.places {
		w.bench.observations.Add(1)
		promised, before, failed := p.kept.look()
		open := w.transactionOpen(p)
		served := p.serving()
		pair, err := p.read()
		if _, opened, _ := p.kept.look(); opened != before {
			open = true // by another part of the agent, just now
		}
		onDisk := fingerprintOf(pair)
		var wrong bool
		switch {
		case !open:
			if wrong = err != nil || onDisk != promised || served != promised; failed {
				w.bench.held.Add(1)
				w.held.Add(1)
			}
		case served == "" && promised != "", served != "" && !issued[served]:
			wrong = true
		case err != nil:
			if wrong = !p.split(); !wrong {
				w.bench.windows.Add(1)
			}
		default:
			wrong = pair == nil && promised != "" || pair != nil && !issued[onDisk]
		}
		if wrong {
			w.bench.mismatches.Add(1)
			w.t.Errorf("%s: %s serves %q and has on disk %q (%v); a deployment is open: %t; it had %q",
				label, p.id, served, onDisk, err, open, promised)
		}
	}
}

// split reports whether key and certificate are files that change one by one.
func (p *program) split() bool { return p.layout == "files" && p.paths.Combined == "" }

// inspect checks the state file and the keys that a crash has left, before
// anything is done about them, and returns the record; nil if there is none.
func (w *world) inspect() *store.Certificate {
	rec := w.record()
	if rec == nil {
		return nil
	}
	for _, g := range []*store.Generation{rec.Current, rec.Next, rec.Previous} {
		if g == nil || g == rec.Previous {
			continue // the file of the previous one may be gone
		}
		w.bench.observations.Add(1)
		key, err := os.ReadFile(filepath.Join(w.keys("certificates"), g.KeyID+".key.pem"))
		if err == nil && g.ChainPEM != "" {
			_, err = tls.X509KeyPair([]byte(g.ChainPEM), key)
		}
		if err != nil {
			w.bench.mismatches.Add(1)
			w.t.Errorf("%s: generation %d: %v", w.label, g.Number, err)
		}
	}
	if w.before != "" && (rec.Current == nil || rec.Renewals == 1 && rec.Current.Fingerprint != w.before) {
		w.bench.mismatches.Add(1)
		w.t.Errorf("%s: the record has lost the pair in service", w.label)
	}
	return rec
}

// wire is what a place serves, by a handshake.
func (w *world) wire(p *place) (string, error) {
	chain, err := tlsutil.ProbeServed(context.Background(), tlsutil.Probe{
		Network: "tcp", Address: w.bench.web.address, ServerName: w.sni(p), Timeout: time.Minute,
	})
	if err != nil {
		return "", err
	}
	return pki.Fingerprint(chain[0]), nil
}

// requireServed checks that everything is as it should be after n renewals.
func (w *world) requireServed(n uint64) {
	w.t.Helper()
	rec := w.record()
	require.EqualValues(w.t, n, rec.Renewals)
	assert.Nil(w.t, rec.Next)
	assert.Nil(w.t, rec.Previous)
	assert.Empty(w.t, rec.OrderID)
	for _, p := range w.places {
		w.bench.observations.Add(1)
		served, err := w.wire(p)
		pair, readErr := p.read()
		if err != nil || readErr != nil || served != rec.Current.Fingerprint || fingerprintOf(pair) != served {
			w.bench.mismatches.Add(1)
			w.t.Errorf("%s: %s serves %s (%v), has %s on disk (%v), and should have %s",
				w.label, p.id, served, err, fingerprintOf(pair), readErr, rec.Current.Fingerprint)
		}
		assert.Equal(w.t, wire.DeploymentVerified, rec.Deployments[p.id].Outcome, p.id)
		assert.Empty(w.t, rec.Deployments[p.id].State, p.id)
		assert.False(w.t, w.transactionOpen(p), "%s: a deployment to %s is still open", w.label, p.id)
	}
	w.requireTidy()
	w.count(n)
}

// count holds the authorities' ledgers against what was put into service.
func (w *world) count(n uint64) {
	issued := 0
	for _, ca := range []*authority{w.ca, w.standIn} {
		if ca == nil {
			continue
		}
		for order, certificates := range ca.issuedTo() {
			issued += certificates
			if certificates > 1 {
				w.t.Errorf("%s: order %s has %d certificates", w.label, order, certificates)
			}
		}
	}
	if w.brokered {
		issued += w.centre.issued(map[string]bool{})
	}
	if issued != int(n) {
		w.bench.duplicates.Add(int64(issued) - int64(n))
		w.t.Errorf("%s: %d certificates were issued for %d renewals", w.label, issued, n)
	}
}

// requireTidy checks that nothing of what lives for a moment is left.
func (w *world) requireTidy() {
	w.t.Helper()
	var left []string
	require.NoError(w.t, filepath.WalkDir(w.root, func(path string, entry os.DirEntry, err error) error {
		base := filepath.Base(path)
		if strings.HasPrefix(base, ".certctl-") || strings.HasPrefix(base, "snapshot-") && !w.untidy ||
			strings.HasSuffix(base, ".room") || strings.HasSuffix(base, ".new") {
			left = append(left, path)
		}
		return err
	}))
	assert.Empty(w.t, left, w.label)
	for _, p := range w.places {
		if p.layout != "directory" || w.untidy {
			continue
		}
		dirs, err := filepath.Glob(filepath.Join(w.root, "www", "."+p.id+".certctl-*"))
		require.NoError(w.t, err)
		assert.Len(w.t, dirs, 1, "directories of %s", p.id)
	}
}

// requireSwept checks that every key file is one that the store refers to.
func (w *world) requireSwept() {
	w.t.Helper()
	known, err := w.store.KeyIDs()
	require.NoError(w.t, err)
	for _, kind := range keyDirectories {
		entries, err := os.ReadDir(w.keys(kind))
		require.NoError(w.t, err)
		for _, entry := range entries {
			if id, _ := strings.CutSuffix(entry.Name(), ".key.pem"); !known[id] {
				w.bench.orphans.Add(1)
				w.t.Errorf("%s: key %s in %s is an orphan", w.label, id, kind)
			}
		}
	}
}

// requireFacts checks the outbox, which nobody has emptied: numbers without a
// gap, and each renewal told once.
func (w *world) requireFacts(n uint64) {
	w.t.Helper()
	events, err := w.store.Events(0)
	require.NoError(w.t, err)
	if w.centre != nil {
		require.Empty(w.t, events, "%s: facts wait", w.label)
		events = w.centre.told()
	}
	told := map[wire.EventKind][]string{}
	for i, e := range events {
		assert.Equal(w.t, uint64(i+1), e.Sequence, w.label)
		assert.Zero(w.t, e.Count)
		if e.Kind == wire.EventDeployed {
			e.Serial += " at " + e.Detail
		}
		told[e.Kind] = append(told[e.Kind], e.Serial)
	}
	want := map[wire.EventKind]int{
		wire.EventIdentityRenewed: w.identities(),
		wire.EventIssued:          int(n), wire.EventRenewed: int(n), wire.EventDeployed: int(n) * len(w.places),
	}
	for kind, number := range want {
		serials := slices.Sorted(slices.Values(told[kind]))
		distinct := len(slices.Compact(slices.Clone(serials)))
		w.bench.facts.Add(int64(number))
		w.bench.lost.Add(int64(max(0, number-distinct)))
		if distinct != number {
			w.t.Errorf("%s: %d facts %s, and %d were to be told", w.label, distinct, kind, number)
		}
		if again := len(serials) - distinct; again > 0 && kind != wire.EventDeployed {
			w.bench.twice.Add(int64(again))
			w.t.Errorf("%s: %d facts %s are told twice", w.label, again, kind)
		}
	}
}
