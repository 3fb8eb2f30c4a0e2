package resource

import "time"

// SnapshotContentType is the media type of snapshot files.
const SnapshotContentType = "application/vnd.certctl.snapshot"

// Snapshot says what a snapshot file holds.
type Snapshot struct {
	ClusterID string         `json:"cluster_id" doc:"The cluster that it is of."`
	NodeID    string         `json:"node_id" doc:"The node that wrote it."`
	Index     uint64         `json:"index" doc:"The log index that it was taken at."`
	Time      time.Time      `json:"time"`
	Version   string         `json:"version" doc:"Of the program that wrote it."`
	Level     uint32         `json:"level" doc:"Of the commands that the program knew."`
	SealKeys  []string       `json:"seal_keys" nullable:"false" doc:"Ids of the seal keys that open the private keys in it."`
	Rows      map[string]int `json:"rows" nullable:"false" doc:"Records, by table."`
	SHA256    string         `json:"sha256"`
}

// Restored is what a restore did, or would do.
type Restored struct {
	DryRun   bool     `json:"dry_run" doc:"Nothing was changed."`
	Snapshot Snapshot `json:"snapshot"`
	// ClusterID is that of the cluster before the restore.
	ClusterID string         `json:"cluster_id" doc:"The cluster whose state is replaced; it has to be named to do so."`
	Index     uint64         `json:"index" doc:"The log index of this cluster, before a restore or after it."`
	Rows      map[string]int `json:"rows" nullable:"false" doc:"Records of the state that is replaced, by table."`
	// LostChanges counts the log entries since the snapshot, if it is of this
	// cluster.
	LostChanges uint64 `json:"lost_changes,omitempty" doc:"Log entries since the snapshot, whose changes are lost; absent if it is of another cluster."`
	// Preview is what a dry run finds.
	Preview *RestorePreview `json:"preview,omitempty" doc:"Of a dry run: what a restore would do to the state."`
}

// MaxPreviewed bounds the records that one list of a preview names.
const MaxPreviewed = 1000

// RestorePreview compares the state with the snapshot.
type RestorePreview struct {
	Refusal       string          `json:"refusal,omitempty" doc:"Why the restore would be refused, and what to do about it; absent if it would not."`
	SealKeyOpens  bool            `json:"seal_key_opens" doc:"Whether the cluster's seal key opens the private keys of the built-in CA in the snapshot."`
	LostFacts     uint64          `json:"lost_facts" doc:"Facts of this node's journal since the snapshot, if it is of this cluster. They stay in the journal; what they tell of is gone from the state."`
	LostAudit     uint64          `json:"lost_audit" doc:"Those of them that are of the audit trail."`
	LostFactsMore bool            `json:"lost_facts_more" doc:"There are more than were counted."`
	Changes       []RestoreChange `json:"changes" nullable:"false" doc:"By kind of record, all kinds that a restore replaces."`
}

// RestoreChange is what would become of the records of one kind.
type RestoreChange struct {
	Kind     string          `json:"kind" example:"agents"`
	Vanish   RestoredRecords `json:"vanish" doc:"Are there now, and not in the snapshot."`
	Appear   RestoredRecords `json:"appear" doc:"Are in the snapshot, and not there now."`
	Change   RestoredRecords `json:"change" doc:"Are in both, and differ."`
	Same     int             `json:"same" doc:"Are in both, and do not."`
	Reported bool            `json:"reported" doc:"Agents report these again by themselves."`
}

// RestoredRecords are some records of one kind.
type RestoredRecords struct {
	Count int              `json:"count"`
	Items []RestoredRecord `json:"items" nullable:"false" maxItems:"1000" doc:"The first thousand."`
}

// RestoredRecord names a record.
type RestoredRecord struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty" doc:"For people: a hostname, a description."`
}
