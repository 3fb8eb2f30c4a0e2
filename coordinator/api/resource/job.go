package resource

import "time"

// JobKind is what a job is about.
type JobKind string

// Kinds of jobs, in the order of the list.
const (
	JobOrder       JobKind = "order"        // at an issuer that the coordinator talks to
	JobRenewal     JobKind = "renewal"      // of one certificate, by its host
	JobRevocation  JobKind = "revocation"   // that somebody asked a host for
	JobCommand     JobKind = "command"      // a renewal that somebody asked a host for
	JobMassRenewal JobKind = "mass_renewal" // of many certificates
)

// JobKinds lists all, in the order of the list.
var JobKinds = []JobKind{JobOrder, JobRenewal, JobRevocation, JobCommand, JobMassRenewal}

// JobState is where a job stands, in the same words for all kinds.
type JobState string

// States of a job.
const (
	JobWaiting     JobState = "waiting"      // for its turn, its host, or somebody else's machine
	JobRunning     JobState = "running"      // somebody works on it
	JobRetrying    JobState = "retrying"     // it has failed, and is tried again by itself
	JobNeedsPerson JobState = "needs_person" // it goes on when a person has done something
	JobDone        JobState = "done"
	JobFailed      JobState = "failed" // and is not tried again
	JobCancelled   JobState = "cancelled"
)

// JobStates lists all.
var JobStates = []JobState{JobWaiting, JobRunning, JobRetrying, JobNeedsPerson, JobDone, JobFailed, JobCancelled}

// Ended reports whether nothing more will come of the job.
func (s JobState) Ended() bool { return s == JobDone || s == JobFailed || s == JobCancelled }

// Job is something that is under way for the fleet and that somebody may wait for, or
// has to do something about. It is no record of its own: a job is how a certificate, an
// order, a command or a mass renewal stands at the moment, put into one vocabulary. So
// jobs cannot be made or changed, only what they are about. A renewal is a job from
// when its host has begun it, or should have, until the new certificate is in service,
// and leaves no trace in the list then: the journal has what became of it. One that
// waits for an order has a job for each. What the coordinator does for itself, such as
// snapshots, rotations and revocation lists, and what the built-in CA has done at once,
// is none.
type Job struct {
	Kind     JobKind   `json:"kind" enum:"order,renewal,revocation,command,mass_renewal"`
	ID       string    `json:"id" doc:"Of the order, the command or the mass renewal; of a renewal it is the name of the certificate. With kind and agent_id it is unique."`
	Object   string    `json:"object" doc:"The certificate's name on its host; of a mass renewal the selector of hosts."`
	AgentID  string    `json:"agent_id,omitempty" doc:"Absent for a mass renewal."`
	Hostname string    `json:"hostname,omitempty"`
	Issuer   string    `json:"issuer,omitempty" doc:"Name of the issuer, where it is known."`
	State    JobState  `json:"state" enum:"waiting,running,retrying,needs_person,done,failed,cancelled"`
	Since    time.Time `json:"since,omitzero" doc:"Since when it is in this state, where that is known, else since when it is a job; when it ended, if it has."`
	Next     time.Time `json:"next,omitzero" doc:"When something is done about it next by itself."`
	Detail   string    `json:"detail,omitempty"`
	Mend     string    `json:"mend,omitempty" doc:"What a person has to do, or can."`
}
