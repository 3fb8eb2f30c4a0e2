// Package deploy is the contract between the renewal engine and the places
// where certificates are put into service. Each kind of target is a package
// below this one.
package deploy

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
)

// Target is one place where a program reads a certificate and its key.
//
// Deploy is a transaction: it ends either with the new pair in service (nil),
// or with what was there before in service again (an *Error whose RolledBack is
// true), or, when even that failed, with an *Error whose RolledBack is false.
// Before each step that changes what a program may read, it saves what is
// needed to go on or back through Task.Save. After a crash it is called again
// with the same task and the last saved state and finishes the transaction: it
// may begin the steps anew, but must roll back to what was there before the
// first call, not to what a call that crashed left.
//
// Deploy returns soon after ctx is done, having rolled back or saved enough to
// continue. It is called for one task at a time per target, and may be called
// concurrently for different targets.
type Target interface {
	Deploy(ctx context.Context, task *Task) (*Report, error)
	// Verify compares what is in service with leaf and changes nothing. It is
	// used after a restart and by status; a nil error means that leaf is what
	// is served, or, where the target has nothing to connect to, what is on
	// disk.
	Verify(ctx context.Context, leaf *x509.Certificate) error
	// Probed reports whether Verify connects to the program that serves.
	Probed() bool
}

// Task is one pair to put into service at one target.
type Task struct {
	Certificate string // name of the managed certificate
	// Generation numbers the pair; it grows with each renewal.
	Generation uint64
	Key        crypto.Signer
	Chain      []*x509.Certificate // leaf first, without the root
	// ScratchDir is a private directory for this target's snapshots. It exists,
	// survives restarts, and is the target's alone.
	ScratchDir string
	// State is what Save was last given for this target and generation; nil
	// when nothing was.
	State json.RawMessage
	// Save makes state durable before it returns nil.
	Save func(state json.RawMessage) error
}

// Report says what a successful deployment did.
type Report struct {
	// Changed is false when everything was in place already and the program
	// serves it, so that nothing was written or reloaded.
	Changed bool
	// Verified is true when the new certificate was seen on the wire.
	Verified bool
	Detail   string
}

// Stage is the step of a deployment that failed.
type Stage string

// Stages of a deployment.
const (
	StagePrepare Stage = "prepare" // before anything changed
	StageWrite   Stage = "write"
	StageCheck   Stage = "check"
	StageReload  Stage = "reload"
	StageVerify  Stage = "verify"
)

// Error is a failed deployment.
type Error struct {
	Stage Stage
	// RolledBack is true when what was in service before is in service again,
	// and always for StagePrepare.
	RolledBack bool
	// Fresh is true when nothing was there before, so that rolling back removes
	// what was written.
	Fresh bool
	// RollbackErr is why the rollback failed, when it did.
	RollbackErr error
	// Output is what the failing command printed, cut to a bounded length.
	Output string
	// Mend tells an operator what to do.
	Mend string
	Err  error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s failed: %v", e.Stage, e.Err)
	if e.Output != "" {
		s += fmt.Sprintf(" (it printed: %s)", e.Output)
	}
	switch {
	case e.Stage == StagePrepare:
		s += "; nothing was changed"
	case e.RolledBack && e.Fresh:
		s += "; there was no certificate before, and what was written was removed again"
	case e.RolledBack:
		s += "; the previous certificate is in service again"
	case e.RollbackErr != nil && e.Fresh:
		s += fmt.Sprintf("; there was no certificate before, and removing what was written failed too: %v", e.RollbackErr)
	case e.RollbackErr != nil:
		s += fmt.Sprintf("; putting the previous certificate back failed too: %v", e.RollbackErr)
	}
	if e.Mend != "" {
		s += "; " + e.Mend
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }
