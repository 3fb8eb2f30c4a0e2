package recovery

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/cluster"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// report is of a node whose log has an entry of each of the terms, from index 1.
func report(id string, voters, committed int, terms ...uint64) *Report {
	r := &Report{Format: reportFormat, ClusterID: "c1"}
	r.NodeID, r.Committed = id, uint64(committed)
	for i := range voters {
		r.Configuration = append(r.Configuration, cluster.ServerReport{ID: fmt.Sprintf("n%d", i+1), Voter: true})
	}
	for i, term := range terms {
		index := uint64(i + 1)
		if n := len(r.Terms); n > 0 && r.Terms[n-1].Term == term {
			r.Terms[n-1].To = index
		} else {
			r.Terms = append(r.Terms, cluster.TermRun{Term: term, From: index, To: index})
		}
		r.Entries = append(r.Entries, cluster.EntryReport{
			Index: index, Term: term, Type: "command", Time: noon.Add(time.Duration(i) * time.Minute), Digest: fmt.Sprintf("%d-%d", index, term),
			Kinds: map[string]int{"SyncAgent": 2}, Agents: []string{fmt.Sprintf("agent%d", i)},
		})
		r.LastIndex, r.LastTerm, r.FirstIndex = index, term, 1
	}
	return r
}

func compare(t *testing.T, reports ...*Report) *Comparison {
	t.Helper()
	c, err := Compare(reports)
	require.NoError(t, err)
	return c
}

func TestTheLastOfThree(t *testing.T) {
	c := compare(t, report("n2", 3, 3, 1, 1, 1, 1, 1))
	assert.False(t, c.Quorum)
	assert.Equal(t, "n2", c.Choose)
	assert.Equal(t, []string{"n1", "n3"}, c.Missing)
	assert.True(t, c.Lost.Possible, "the two that are lost were a majority")
	assert.EqualValues(t, 5, c.Lost.After)
	assert.EqualValues(t, 3, c.Lost.Sure, "what is not known to be committed may be an old leader's")
	assert.Equal(t, noon.Add(4*time.Minute), c.Lost.Since)
	assert.EqualValues(t, 2, c.Kept.Entries)
	assert.Equal(t, map[string]int{"SyncAgent": 4}, c.Kept.Kinds)
	assert.Equal(t, []string{"agent3", "agent4"}, c.Kept.Agents)
}

func TestAMajorityNeedsNoRecovery(t *testing.T) {
	c := compare(t, report("n1", 3, 1, 1), report("n2", 3, 1, 1))
	assert.True(t, c.Quorum)
	var text bytes.Buffer
	require.NoError(t, c.write(&text))
	assert.Contains(t, text.String(), "Start these nodes")
}

func TestTheLongerOfTwoLogsIsChosen(t *testing.T) {
	c := compare(t, report("n1", 5, 2, 1, 1, 1), report("n4", 5, 3, 1, 1, 1, 2, 2))
	assert.Equal(t, "n4", c.Choose)
	require.Len(t, c.Others, 1)
	d := c.Others[0]
	assert.Equal(t, RelationPrefix, d.Relation)
	assert.EqualValues(t, 3, d.Common)
	assert.EqualValues(t, 2, d.OnlyChosen.Entries)
	assert.Zero(t, d.OnlyOther.Entries)
	assert.True(t, c.Lost.Possible)
}

// A higher term in the last entry counts more than a longer log: the longer one
// has what its leader could not get a majority for.
func TestAHigherTermCountsMoreThanALongerLog(t *testing.T) {
	c := compare(t, report("n1", 5, 2, 1, 1, 2, 2, 2, 2), report("n2", 5, 2, 1, 1, 3))
	assert.Equal(t, "n2", c.Choose)
	d := c.Others[0]
	assert.Equal(t, RelationDiverged, d.Relation)
	assert.EqualValues(t, 2, d.Common)
	assert.EqualValues(t, 4, d.OnlyOther.Entries)
	assert.EqualValues(t, 3, d.OnlyOther.From)
	assert.EqualValues(t, 1, d.OnlyChosen.Entries)
}

// An old leader's tail is at indexes that the others have committed otherwise.
func TestATailAtCommittedIndexesIsStillSeen(t *testing.T) {
	c := compare(t, report("n1", 5, 6, 1, 1, 3, 3, 3, 3), report("n2", 5, 2, 1, 1, 2, 2))
	assert.Equal(t, "n1", c.Choose)
	assert.Equal(t, RelationDiverged, c.Others[0].Relation)
	assert.EqualValues(t, 2, c.Others[0].Common)
	assert.EqualValues(t, 2, c.Others[0].OnlyOther.Entries)
}

func TestHalfOfAnEvenNumberLosesNothing(t *testing.T) {
	c := compare(t, report("n1", 4, 2, 1, 1, 1), report("n2", 4, 2, 1, 1))
	assert.False(t, c.Quorum)
	assert.Equal(t, 3, c.Majority)
	assert.False(t, c.Lost.Possible, "what was acknowledged was on three of four, so on one of these")
	assert.Equal(t, c.Lost.After, c.Lost.Sure)
	assert.Equal(t, "n1", c.Choose)
}

func TestANodeThatCannotBeUsedIsNotChosen(t *testing.T) {
	newest := report("n1", 5, 2, 1, 1, 1, 1)
	newest.StateProblem = "its snapshot is damaged"
	c := compare(t, newest, report("n2", 5, 2, 1, 1, 1))
	assert.Equal(t, "n1", c.Newest)
	assert.Equal(t, "n2", c.Choose)
	assert.True(t, c.Lost.Possible)
	assert.Contains(t, c.Lost.Why, "n1")
	assert.Equal(t, RelationExtends, c.Others[0].Relation)
	assert.EqualValues(t, 1, c.Others[0].OnlyOther.Entries)
	assert.Contains(t, strings.Join(c.Warnings, "\n"), "its snapshot is damaged")

	c = compare(t, newest)
	assert.Empty(t, c.Choose)
	assert.Contains(t, strings.Join(c.Warnings, "\n"), "restore a snapshot")
}

func TestADiskThatChangedAnEntryIsTold(t *testing.T) {
	changed := report("n2", 5, 2, 1, 1, 1)
	changed.Entries[1].Digest = "another"
	c := compare(t, report("n1", 5, 2, 1, 1, 1), changed)
	assert.Contains(t, strings.Join(c.Warnings, "\n"), "entry 2 of the same term with different content")
}

// A log that was cut is compared by what its snapshot says.
func TestALogBehindASnapshot(t *testing.T) {
	cut := report("n1", 5, 4, 1, 1, 1, 1, 2, 2)
	cut.Terms, cut.Entries, cut.FirstIndex = []cluster.TermRun{{Term: 2, From: 5, To: 6}}, cut.Entries[4:], 5
	cut.Snapshots = []cluster.SnapshotReport{{ID: "s", Index: 4, Term: 1}}
	c := compare(t, cut, report("n2", 5, 2, 1, 1, 1, 1))
	assert.Equal(t, RelationPrefix, c.Others[0].Relation)
	assert.EqualValues(t, 4, c.Others[0].Common)
}

func TestReportsThatDoNotBelongTogether(t *testing.T) {
	_, err := Compare(nil)
	require.Error(t, err)
	_, err = Compare([]*Report{report("n1", 3, 1, 1), report("n1", 3, 1, 1)})
	require.ErrorContains(t, err, "two reports of the node n1")
	other := report("n2", 3, 1, 1)
	other.ClusterID = "c2"
	_, err = Compare([]*Report{report("n1", 3, 1, 1), other})
	require.ErrorContains(t, err, "of one cluster")
	stranger := report("n9", 3, 1, 1)
	c := compare(t, stranger)
	assert.Contains(t, strings.Join(c.Warnings, "\n"), "n9: it is no voter")
}

func TestReportsAreReadAsTheyWereWritten(t *testing.T) {
	want := report("n1", 3, 2, 1, 1, 2)
	text, err := json.Marshal(want)
	require.NoError(t, err)
	got, err := ReadReport(bytes.NewReader(text))
	require.NoError(t, err)
	assert.Equal(t, want, got)
	for name, change := range map[string]func(*Report){
		"no report": func(r *Report) { r.NodeID = "" }, "later": func(r *Report) { r.Format = 2 },
		"terms": func(r *Report) { r.Terms[1].From = 1 }, "behind": func(r *Report) { r.LastIndex = 2; r.Entries = nil },
		"entries": func(r *Report) { r.Entries[1].Index = 9 },
	} {
		r := report("n1", 3, 2, 1, 1, 2)
		change(r)
		text, err := json.Marshal(r)
		require.NoError(t, err)
		_, err = ReadReport(bytes.NewReader(text))
		assert.Error(t, err, name)
	}
	_, err = ReadReport(strings.NewReader("no report"))
	require.ErrorContains(t, err, "recover inspect")
}

func FuzzReadReport(f *testing.F) {
	text, err := json.Marshal(report("n1", 3, 2, 1, 1, 2))
	require.NoError(f, err)
	f.Add(text)
	f.Add([]byte(`{"format":1,"node_id":"n2","last_index":18446744073709551615,"terms":[{"term":1,"from":1,"to":18446744073709551615}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ReadReport(bytes.NewReader(data))
		if err != nil {
			return
		}
		c, err := Compare([]*Report{r, report("another", 3, 2, 1, 1, 2)})
		if err != nil {
			return
		}
		require.NoError(t, c.write(&bytes.Buffer{}))
		require.NoError(t, r.write(&bytes.Buffer{}))
	})
}
