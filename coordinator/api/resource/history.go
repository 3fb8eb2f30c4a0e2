package resource

import "time"

// Places where the history is kept.
const (
	HistoryInJournal  = "journal"
	HistoryInDatabase = "database"
)

// HistoryStatus is where the history is, and how the export to the database stands in
// the eyes of the leader.
type HistoryStatus struct {
	Source   string           `json:"source" enum:"journal,database" doc:"Where the history is read from."`
	Node     string           `json:"node" doc:"The node that leads, and answers."`
	Journal  JournalStatus    `json:"journal"`
	Database *HistoryDatabase `json:"database,omitempty" doc:"Absent without a database."`
}

// HistoryDatabase is how the export to the database stands.
type HistoryDatabase struct {
	Usable         bool      `json:"usable" doc:"It could be read and written at the last attempt."`
	Refused        bool      `json:"refused" doc:"It is not used for a reason that a person has to look at, which error has."`
	Error          string    `json:"error,omitempty" doc:"Why the last attempt failed."`
	ErrorAt        time.Time `json:"error_at,omitzero"`
	Warning        string    `json:"warning,omitempty" doc:"What is wrong with the number of connections."`
	ServerVersion  string    `json:"server_version,omitempty"`
	Connections    int       `json:"connections"`
	MaxConnections int       `json:"max_connections" doc:"That the leader may have."`
	Granted        int       `json:"granted_connections" doc:"That the server grants; 0 while that is not known."`

	Through       uint64    `json:"exported_through" doc:"Newest log entry whose facts are in the database."`
	Facts         uint64    `json:"facts" doc:"That the database was given in all."`
	Waiting       int       `json:"waiting_facts" doc:"Facts in the journal of the leader that are not in the database yet."`
	WaitingMore   bool      `json:"waiting_more,omitempty" doc:"There are more than waiting_facts, which were not counted."`
	LagSeconds    float64   `json:"lag_seconds" doc:"How old the oldest of them is."`
	Missing       uint64    `json:"missing_entries" doc:"Log entries up to exported_through whose facts no leader has had yet."`
	DroppedBefore uint64    `json:"dropped_through,omitempty" doc:"Newest log entry of which routine facts had gone from the journal before they could be exported."`
	ExportedAt    time.Time `json:"exported_at,omitzero" doc:"When the leader stored facts last."`
}

// PruneHistory asks for old months of routine facts to be dropped.
type PruneHistory struct {
	Before time.Time `json:"before" doc:"Months that ended at or before this moment go. A month goes whole or stays; months are those of UTC."`
	DryRun bool      `json:"dry_run,omitempty" doc:"Only say what would go."`
}

// PrunedHistory is what goes, or would go.
type PrunedHistory struct {
	DryRun bool          `json:"dry_run"`
	Months []PrunedMonth `json:"months" nullable:"false"`
	Facts  int64         `json:"facts" doc:"In all months together."`
	Bytes  int64         `json:"bytes" doc:"On the database's disk, with indexes."`
}

// PrunedMonth is one month of routine facts.
type PrunedMonth struct {
	Month string `json:"month" example:"2026-04"`
	Facts int64  `json:"facts"`
	Bytes int64  `json:"bytes"`
}
