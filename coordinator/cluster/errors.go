package cluster

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

var (
	// ErrNoState says that a directory was never bootstrapped.
	ErrNoState = errors.New("there is no cluster state here; initialise the coordinator first")
	// ErrStateExists says that a directory was bootstrapped before.
	ErrStateExists = errors.New("there is cluster state here already; start the coordinator without initialising it")
	// ErrInUse says that another process has the log open.
	ErrInUse = errors.New("another coordinator is running on this directory; stop it first")
	// ErrLogDamaged says that the log cannot be read.
	ErrLogDamaged = errors.New("the Raft log is damaged; it was left as it is: keep a copy and restore the directory from a backup")
	// ErrLogMissing says that a directory was bootstrapped and has no log.
	ErrLogMissing = errors.New("the Raft log is missing, and without it what was changed last; restore the whole directory from a backup")
	// ErrJournalAhead says that the journal is newer than the log, which happens
	// when one was restored from a backup without the other.
	ErrJournalAhead = errors.New("the journal is newer than the Raft log; restore both from the same backup")

	// ErrStopped says that the node is stopping or was stopped.
	ErrStopped = errors.New("this node is stopping")
	// ErrNotLeader says that another node leads, or none does. Nothing was done.
	ErrNotLeader = errors.New("this node does not lead the cluster")
	// ErrTooLarge says that the commands of one proposal do not fit in one entry.
	ErrTooLarge = errors.New("the commands are too large for one log entry; propose them in smaller parts")
	// ErrNoMember says that no member has this id.
	ErrNoMember = errors.New("no member of the cluster has this id; list the members")
)

// errForgotten says why an outcome stays unknown: the commands were proposed before,
// so long ago that the state would not recognize them.
var errForgotten = errors.New("it was proposed so many changes ago that it would not be recognized, and could be applied twice")

// ConflictError says that the membership is not what the caller thought it was.
// Nothing was done.
type ConflictError struct {
	Index uint64 // of the configuration as it is
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("the members of the cluster have changed (configuration %d now): look at them again, then repeat", e.Index)
}

// QuorumError says that a change of the membership would leave too few voters
// that are alive. Nothing was done.
type QuorumError struct {
	Reason string
}

// Error implements error.
func (e *QuorumError) Error() string { return e.Reason }

// AddressTakenError says that another member has an address, and answers there:
// it is not removed for a node that wants to be there too. Nothing was done.
type AddressTakenError struct {
	Address string
	Member  string // id of the one that has it
}

// Error implements error.
func (e *AddressTakenError) Error() string { return e.Detail() + ": " + e.Mend() }

// Detail says what is wrong.
func (e *AddressTakenError) Detail() string {
	return fmt.Sprintf("address %s is that of member %s, which answers there", e.Address, e.Member)
}

// Mend says what to do about it.
func (e *AddressTakenError) Mend() string {
	return fmt.Sprintf("give this node an address of its own (cluster.advertise), or remove %s first", e.Member)
}

// LevelError says that members do not understand a command yet. Nothing was done.
type LevelError struct {
	Required uint32   // see [fleet.Level]
	Nodes    []string // ids of those that have to be upgraded
}

// Error implements error.
func (e *LevelError) Error() string {
	return fmt.Sprintf("not every node of the cluster understands this change (level %d) yet; upgrade these nodes, then repeat: %s",
		e.Required, strings.Join(e.Nodes, ", "))
}

// RefusedError is what the leader refused with, for a reason that has no type of
// its own. Nothing was done.
type RefusedError struct {
	Reason string
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Reason }

// OverloadedError says that too many proposals are waiting. Nothing was done.
type OverloadedError struct {
	RetryAfter time.Duration
}

// Error implements error.
func (e *OverloadedError) Error() string {
	return fmt.Sprintf("too many changes are waiting to be stored; try again in %v", e.RetryAfter)
}

// UnknownOutcomeError says that commands were handed to Raft and that it cannot
// be known here whether they were or will be applied. Proposing the same
// commands again, with their ids, is safe: each is applied once.
type UnknownOutcomeError struct {
	Err error
}

// Error implements error.
func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("it is not known whether the change was stored (%v); repeat the same request", e.Err)
}

// Unwrap returns why the outcome is unknown.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }
