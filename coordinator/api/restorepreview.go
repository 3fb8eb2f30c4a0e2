package api

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
)

// maxFactsCounted bounds how far a preview goes back in the journal.
const maxFactsCounted = 100_000

// previewed are the kinds of records that a restore replaces and people know by name,
// and what they are called. The cluster keeps its members, its own CA and its join
// tokens; what else there is follows from these.
var previewed = []struct {
	table    fleet.Table
	reported bool
	name     func(record any) resource.RestoredRecord
}{
	{fleet.TableAgents, false, func(r any) resource.RestoredRecord {
		a := r.(*fleet.Agent)
		return resource.RestoredRecord{ID: a.ID, Name: a.Host.Hostname}
	}},
	{fleet.TableCertificates, true, func(r any) resource.RestoredRecord {
		c := r.(*fleet.Certificate)
		return resource.RestoredRecord{ID: c.Agent + "/" + c.Name}
	}},
	{fleet.TableOrders, false, func(r any) resource.RestoredRecord {
		o := r.(*fleet.Order)
		return resource.RestoredRecord{ID: o.Agent + "/" + o.ID}
	}},
	{fleet.TableAssignments, false, func(r any) resource.RestoredRecord {
		return resource.RestoredRecord{ID: r.(*fleet.Assignment).Name}
	}},
	{fleet.TableCampaigns, false, func(r any) resource.RestoredRecord {
		c := r.(*fleet.Campaign)
		return resource.RestoredRecord{ID: c.ID, Name: c.Selector}
	}},
	{fleet.TableEnrollmentTokens, false, func(r any) resource.RestoredRecord {
		t := r.(*fleet.EnrollmentToken)
		return resource.RestoredRecord{ID: t.ID, Name: t.Description}
	}},
	{fleet.TableAPITokens, false, func(r any) resource.RestoredRecord {
		t := r.(*fleet.APIToken)
		return resource.RestoredRecord{ID: t.ID, Name: t.Name}
	}},
	{fleet.TableIssued, false, func(r any) resource.RestoredRecord {
		i := r.(*fleet.Issued)
		return resource.RestoredRecord{ID: i.Serial, Name: i.Agent + "/" + i.Certificate}
	}},
	{fleet.TableRevocations, false, func(r any) resource.RestoredRecord {
		v := r.(*fleet.Revocation)
		return resource.RestoredRecord{ID: v.Serial, Name: v.Agent + "/" + v.Certificate}
	}},
}

// preview is what a restore of the snapshot would do to the state. The token of the
// request stays.
func (s *server) preview(staged *stagedSnapshot, now *fleet.View, token string) (*resource.RestorePreview, error) {
	out := &resource.RestorePreview{SealKeyOpens: staged.refusal == nil}
	refusal := staged.refusal
	restoration := cluster.Restoration{Index: staged.summary.Index, Pieces: staged.pieces}
	if members, _ := s.Node.Members(); refusal == nil && len(members) > 1 && restoration.Behind(now.Index()) {
		refusal = behindSnapshot(staged, now)
	}
	if refusal != nil {
		out.Refusal = fmt.Sprintf("%s; %s", refusal.Detail, refusal.Mend)
	}
	for _, kind := range previewed {
		change := newRestoreChange(string(kind.table), kind.reported)
		err := fleet.Differences(now, staged.view, kind.table, func(before, after any) {
			switch {
			case after == nil && kind.table == fleet.TableAPITokens && kind.name(before).ID == token:
				change.Same++
			case after == nil:
				addRecord(&change.Vanish, kind.name(before))
			case before == nil:
				addRecord(&change.Appear, kind.name(after))
			default:
				addRecord(&change.Change, kind.name(after))
			}
		})
		if err != nil {
			return nil, err
		}
		change.Same += now.Rows(kind.table) - change.Same - change.Vanish.Count - change.Change.Count
		out.Changes = append(out.Changes, change)
	}
	out.Changes = append(out.Changes, authoritiesChange(now, staged.view))
	if staged.summary.ClusterID != s.Authority.ClusterID() {
		return out, nil
	}
	var err error
	out.LostFacts, out.LostAudit, out.LostFactsMore, err = s.factsSince(staged.summary.Index)
	return out, err
}

func newRestoreChange(kind string, reported bool) resource.RestoreChange {
	none := func() resource.RestoredRecords { return resource.RestoredRecords{Items: []resource.RestoredRecord{}} }
	return resource.RestoreChange{Kind: kind, Vanish: none(), Appear: none(), Change: none(), Reported: reported}
}

func addRecord(list *resource.RestoredRecords, record resource.RestoredRecord) {
	list.Count++
	if len(list.Items) < resource.MaxPreviewed {
		list.Items = append(list.Items, record)
	}
}

// authoritiesChange compares the built-in CA's certificates, which one record holds.
func authoritiesChange(now, then *fleet.View) resource.RestoreChange {
	change := newRestoreChange("ca", false)
	held := func(view *fleet.View) (list []resource.RestoredRecord, states map[string]fleet.AuthorityState) {
		states = map[string]fleet.AuthorityState{}
		ca, ok := view.CA()
		if !ok {
			return nil, states
		}
		for _, a := range ca.Authorities {
			sum := sha256.Sum256(a.Certificate)
			id := hex.EncodeToString(sum[:])
			list, states[id] = append(list, resource.RestoredRecord{ID: id, Name: a.Name}), a.State
		}
		return list, states
	}
	was, before := held(now)
	is, after := held(then)
	for _, a := range was {
		switch state, stays := after[a.ID]; {
		case !stays:
			addRecord(&change.Vanish, a)
		case state != before[a.ID]:
			addRecord(&change.Change, a)
		default:
			change.Same++
		}
	}
	for _, a := range is {
		if _, known := before[a.ID]; !known {
			addRecord(&change.Appear, a)
		}
	}
	return change
}

// factsSince counts what the journal has from after a log index.
func (s *server) factsSince(index uint64) (facts, audit uint64, more bool, err error) {
	query := history.Query{NewestFirst: true, Limit: history.MaxLimit}
	for {
		page, next, err := s.Journal.Read(query)
		if err != nil {
			return 0, 0, false, err
		}
		for i := range page {
			if page[i].Index <= index {
				return facts, audit, false, nil
			}
			if facts++; page[i].Audit > 0 {
				audit++
			}
		}
		if next == "" {
			return facts, audit, false, nil
		}
		if facts >= maxFactsCounted {
			return facts, audit, true, nil
		}
		query.After = next
	}
}
