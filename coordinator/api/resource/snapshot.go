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
}
