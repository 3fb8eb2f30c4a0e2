package resource

import "time"

// MemberHealth says whether a member of the cluster does its part.
type MemberHealth string

// Health of members.
const (
	MemberHealthy     MemberHealth = "healthy"
	MemberBehind      MemberHealth = "behind"      // it answers, and has not applied what others have
	MemberCutOff      MemberHealth = "cut_off"     // it answers, and does not hear the leader
	MemberLeaderless  MemberHealth = "leaderless"  // it answers, and there is no leader to hear
	MemberFailing     MemberHealth = "failing"     // it answers, and cannot work
	MemberUnreachable MemberHealth = "unreachable" // it does not answer the node that was asked
)

// Member is one node in the cluster's configuration.
type Member struct {
	ID      string       `json:"id"`
	Address string       `json:"address" doc:"At which the other nodes reach it."`
	URL     string       `json:"url,omitempty" doc:"Of its API."`
	Version string       `json:"version,omitempty" doc:"Of its program."`
	Level   uint32       `json:"level" doc:"Which changes it understands. No change is made that a member does not understand; 1 is that of a node that has not said."`
	Voter   bool         `json:"voter" doc:"Whether it counts for elections and for what is stored. A new node gets its vote when it has kept up for a while."`
	Leader  bool         `json:"leader"`
	Health  MemberHealth `json:"health" enum:"healthy,behind,cut_off,leaderless,failing,unreachable" doc:"As seen from the node that answers."`
	Reason  string       `json:"reason,omitempty" doc:"Why it is not healthy."`
	// Of a member that answers.
	LeaderHeardSeconds  float64   `json:"leader_heard_seconds,omitempty" doc:"Since it last heard of the leader. Absent for the leader itself."`
	AppliedIndex        uint64    `json:"applied_index,omitempty" doc:"How far it has applied the log."`
	AppliedLag          uint64    `json:"applied_lag" doc:"By how many entries that is behind the newest one that any member knows to be stored. A few are always under way."`
	HistoryMissing      uint64    `json:"history_missing,omitempty" doc:"Log entries of before it joined, or was away, whose facts its journal lacks. It gets them from the other members by itself."`
	ClockAheadSeconds   float64   `json:"clock_ahead_seconds" doc:"By how much its clock is ahead of that of the node that answers, as exactly as a question and its answer tell."`
	CertificateNotAfter time.Time `json:"certificate_not_after,omitzero" doc:"End of the certificate that it shows to the other nodes, which it renews by itself."`
	JoinedAt            time.Time `json:"joined_at,omitzero"`
}

// Members is the cluster's configuration, and how its members stand.
type Members struct {
	AnsweredBy         string    `json:"answered_by" doc:"Id of the node that answers, by whose view this is."`
	Time               time.Time `json:"time"`
	Leader             string    `json:"leader,omitempty" doc:"Id of the leader; absent if none is known."`
	ConfigurationIndex uint64    `json:"configuration_index" doc:"Of the change of members that was made last. With prev_index a change is made to these members or not at all."`
	Items              []Member  `json:"items" nullable:"false"`
}

// Severity of a ClusterProblem.
type Severity string

// Severities of problems.
const (
	SeverityCritical Severity = "critical" // changes cannot be stored, or one more failure loses more than a node
	SeverityWarning  Severity = "warning"
	SeverityNote     Severity = "note" // part of what somebody is doing; it does not make the cluster unhealthy
)

// ClusterProblem is something about the cluster that somebody has to mend.
type ClusterProblem struct {
	Code     string   `json:"code" doc:"The kind of the problem, for programs."`
	Severity Severity `json:"severity" enum:"critical,warning,note"`
	Node     string   `json:"node,omitempty" doc:"The node that it is about; absent if it is about the cluster."`
	Text     string   `json:"text"`
	Mend     string   `json:"mend" doc:"What to do about it."`
}

// ClusterHealth is what the members come to together.
type ClusterHealth struct {
	AnsweredBy       string           `json:"answered_by" doc:"Id of the node that answers, by whose view this is."`
	Time             time.Time        `json:"time"`
	Healthy          bool             `json:"healthy" doc:"Whether there is no problem but notes."`
	Leader           string           `json:"leader,omitempty" doc:"Id of the leader; absent if none is known."`
	Voters           int              `json:"voters"`
	VotersWorking    int              `json:"voters_working" doc:"Voters that do their part."`
	Quorum           int              `json:"quorum" doc:"Voters that have to work for changes to be stored."`
	FailureTolerance int              `json:"failure_tolerance" doc:"How many more voters may fail before changes cannot be stored any more."`
	Problems         []ClusterProblem `json:"problems" nullable:"false" doc:"The worst ones first."`
	CARotation       *CARotation      `json:"ca_rotation,omitempty" doc:"The rotation of the cluster's own CA, while one is under way."`
}

// CARotation is how far a rotation of the cluster's own CA is. It goes on by itself.
type CARotation struct {
	NextStep string            `json:"next_step" enum:"activate,retire" doc:"activate: the new root is published, and signs when all members trust it. retire: it signs, and the old one goes when all members have certificates of the new one."`
	Waiting  []RotationWaiting `json:"waiting" nullable:"false" doc:"What the next step waits for."`
}

// RotationWaiting is a member that a rotation waits for.
type RotationWaiting struct {
	Node string `json:"node"`
	Why  string `json:"why"`
}

// TransferLeadership asks for another leader.
type TransferLeadership struct {
	To string `json:"to,omitempty" maxLength:"64" doc:"Id of the member that is to lead. Absent: one that is up to date is chosen."`
}

// JoinToken is a token by which a node joins, without its secret.
type JoinToken struct {
	ID          string     `json:"id"`
	State       TokenState `json:"state" enum:"usable,used,expired,revoked"`
	Description string     `json:"description,omitempty"`
	CreatedAt   time.Time  `json:"created_at"`
	CreatedBy   string     `json:"created_by"`
	ExpiresAt   time.Time  `json:"expires_at"`
	UsedAt      time.Time  `json:"used_at,omitzero"`
	UsedBy      string     `json:"used_by,omitempty" doc:"Id of the node that joined with it."`
	RevokedAt   time.Time  `json:"revoked_at,omitzero"`
	RevokedBy   string     `json:"revoked_by,omitempty"`
}

// MaxJoinTokenTTL is the longest lifetime of a join token; ttl_seconds has the same
// bound.
const MaxJoinTokenTTL = 7 * 24 * time.Hour

// CreateJoinToken asks for a join token.
type CreateJoinToken struct {
	Description string `json:"description,omitempty" maxLength:"200"`
	TTLSeconds  int64  `json:"ttl_seconds,omitempty" minimum:"60" maximum:"604800" doc:"Lifetime; absent is one hour."`
}

// CreatedJoinToken is the one answer that has the token itself.
type CreatedJoinToken struct {
	JoinToken
	Token   string   `json:"token" doc:"The whole token. It is shown this once; only its hash is kept. It names the cluster's URLs and pins its root."`
	URLs    []string `json:"urls" nullable:"false" doc:"Where the new node will ask, in turn."`
	Warning string   `json:"warning,omitempty" doc:"Why nodes may be unable to use the token as things are, and what to change."`
}
