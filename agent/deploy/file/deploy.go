package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/agent/deploy/command"
	"github.com/certctl/certctl/shared/durable"
)

// transaction is one call of Deploy.
type transaction struct {
	*Target
	task    *deploy.Task
	journal *journal
	plan    *plan
	// record is nil until the transaction is open.
	record *record
	// resumed says that an earlier call opened it and did not end it.
	resumed bool
	// told says that the program may have been told to read the new files.
	told bool
	log  *slog.Logger
}

// Deploy puts the pair into the files and in use, as deploy.Target describes. If
// ctx ends once the program may have been told to reload, the new files stay, the
// transaction stays open and the next call goes on with it.
func (t *Target) Deploy(ctx context.Context, task *deploy.Task) (*deploy.Report, error) {
	if err := ctx.Err(); err != nil {
		return nil, prepareError(err)
	}
	tx := &transaction{Target: t, task: task, journal: t.newJournal(task)}
	tx.log = tx.journal.log
	var err error
	if tx.record, err = tx.journal.find(); err != nil {
		return nil, prepareError(err)
	}
	// The call before may have ended the transaction and crashed before it said so.
	if tx.record == nil && !isEmptyState(task.State) {
		if err := task.Save(nil); err != nil {
			return nil, prepareError(fmt.Errorf("clearing the state of an ended deployment: %w", err))
		}
	}
	// A resumed transaction may have come to the reload, which leaves no trace.
	tx.resumed = tx.record != nil
	tx.told = tx.resumed
	if tx.resumed {
		tx.log.Info("continuing an interrupted deployment", "transaction", tx.record.ID)
	}
	if err := t.layout.sweep(tx.record); err != nil {
		return nil, tx.prepareFailed(ctx, err)
	}
	if tx.plan, err = t.newPlan(task); err != nil {
		return nil, tx.prepareFailed(ctx, err)
	}
	if tx.resumed && !tx.record.covers(tx.plan) {
		if err := tx.putBack(); err != nil {
			return nil, tx.prepareFailed(ctx, err)
		}
	}
	served := ""
	if t.probe != nil {
		if served, err = t.served(ctx); err != nil {
			tx.log.Info("nothing answers the probe before the deployment", "err", err)
		}
	}
	if !tx.resumed && tx.plan.inPlace() {
		return tx.activate(ctx, served)
	}
	return tx.replace(ctx, served)
}

// putBack ends a transaction that was about other files, because the
// configuration was changed after the crash: what the record describes gets its
// old content, and the deployment begins anew with a record of its own.
func (tx *transaction) putBack() error {
	tx.log.Info("the interrupted deployment was to other files, which are put back", "transaction", tx.record.ID)
	if err := tx.restore(tx.journal, tx.record); err != nil {
		return fmt.Errorf("putting back the files of an earlier configuration: %w", err)
	}
	if err := tx.journal.close(tx.record); err != nil {
		return fmt.Errorf("ending the deployment to the files of an earlier configuration: %w", err)
	}
	tx.record, tx.resumed = nil, false
	var err error
	tx.plan, err = tx.newPlan(tx.task)
	return err
}

// activate is Deploy for files that are in place already, with no transaction
// open: there is nothing to go back to.
func (tx *transaction) activate(ctx context.Context, served string) (*deploy.Report, error) {
	inUse := tx.probe == nil || served == tx.plan.fingerprint
	if inUse && tx.verifyCommand != nil {
		_, err := tx.verifyCommand.Run(ctx, tx.environment(tx.task, actionDeploy, tx.plan.fingerprint))
		inUse = err == nil
	}
	if inUse {
		return &deploy.Report{Verified: tx.probe != nil, Detail: "everything was in place and in use"}, nil
	}
	if stage, err := tx.putIntoUse(ctx); err != nil {
		failed := newError(stage, err)
		failed.Mend = join("the files hold the new pair, and there is no earlier one to go back to", failed.Mend)
		return nil, failed
	}
	return &deploy.Report{Changed: true, Verified: tx.probe != nil, Detail: "the files were in place; reloaded"}, nil
}

// replace writes the files and puts them into use, or goes back.
func (tx *transaction) replace(ctx context.Context, served string) (*deploy.Report, error) {
	if !tx.plan.inPlace() {
		if err := tx.layout.stage(tx.plan); err != nil {
			return nil, tx.prepareFailed(ctx, err)
		}
	}
	// The old files are still in place, or a transaction is open that says how
	// to get back to them.
	if err := ctx.Err(); err != nil {
		return nil, tx.prepareFailed(ctx, err)
	}
	if err := tx.open(served); err != nil {
		return nil, tx.prepareFailed(ctx, err)
	}
	// The renames take no notice of ctx: in their middle is the one place where
	// nobody may stop.
	if err := tx.layout.swap(tx.plan); err != nil {
		return nil, tx.rollBack(ctx, newError(deploy.StageWrite, err))
	}
	if stage, err := tx.putIntoUse(ctx); err != nil {
		if ctx.Err() != nil && tx.told {
			failed := newError(stage, err)
			failed.Mend = "the new pair is in place, and the agent goes on with it when it runs again"
			return nil, failed
		}
		return nil, tx.rollBack(ctx, newError(stage, err))
	}
	if err := tx.end(); err != nil {
		failed := newError(deploy.StageVerify, fmt.Errorf("the new pair is in service, but the end of its deployment could not be recorded: %w", err))
		return nil, failed
	}
	return &deploy.Report{Changed: true, Verified: tx.probe != nil, Detail: fmt.Sprintf("wrote %d files", len(tx.plan.items))}, nil
}

// open makes the snapshot of what is there, or keeps the one of the call that
// did not end: what is there now may be half of each.
func (tx *transaction) open(served string) error {
	if tx.resumed {
		return tx.journal.remember(tx.record)
	}
	r, contents := tx.plan.capture(randomID(), tx.task, served)
	tx.record = r
	return tx.journal.begin(r, contents)
}

// end closes the transaction and removes what it leaves behind.
func (tx *transaction) end() error {
	needed := tx.record
	err := tx.journal.close(tx.record)
	if err == nil {
		needed = nil // else the transaction may still be open
	}
	if sweepErr := tx.layout.sweep(needed); sweepErr != nil {
		// The next call tries again.
		tx.log.Warn("removing leftovers of a deployment failed", "err", sweepErr)
	}
	return err
}

// putIntoUse runs the check, the reload and the verification, and says which of
// them failed.
func (tx *transaction) putIntoUse(ctx context.Context) (deploy.Stage, error) {
	env := tx.environment(tx.task, actionDeploy, tx.plan.fingerprint)
	if err := tx.run(ctx, stepCheck, tx.check, env); err != nil {
		return deploy.StageCheck, err
	}
	tx.told = true
	if err := tx.run(ctx, stepReload, tx.reload, env); err != nil {
		return deploy.StageReload, err
	}
	if err := tx.verify(ctx, tx.task, tx.plan.fingerprint); err != nil {
		return deploy.StageVerify, err
	}
	return "", nil
}

// run runs a command, if it is configured.
func (tx *transaction) run(ctx context.Context, s durable.Step, c *command.Command, env map[string]string) error {
	return tx.hook.Around(s, tx.task.Certificate, func() error {
		if c == nil {
			return ctx.Err()
		}
		_, err := c.Run(ctx, env)
		return err
	})
}

// prepareFailed gives up before this call has put anything in place. A record
// that this call wrote is taken back; one that it found says that an earlier
// call may have put something in place, which must then go.
func (tx *transaction) prepareFailed(ctx context.Context, cause error) error {
	if tx.resumed {
		return tx.rollBack(ctx, newError(deploy.StageWrite, cause))
	}
	failed := prepareError(cause)
	var undo error
	if tx.record != nil {
		undo = tx.end()
	} else {
		undo = tx.layout.sweep(nil)
	}
	if undo != nil {
		tx.log.Warn("clearing up after a failed deployment failed", "err", undo)
	}
	return failed
}

// rollBack puts back what was there before the transaction and, where the
// program may use the new files, makes it use the old ones. It completes failed
// with the outcome.
func (tx *transaction) rollBack(ctx context.Context, failed *deploy.Error) error {
	failed.Fresh = tx.record.empty()
	if err := tx.restore(tx.journal, tx.record); err != nil {
		failed.RollbackErr = err
		failed.Mend = join(failed.Mend, mendFor(err), "the agent tries again to put back the old files, or to finish with the new ones, at the next attempt")
		return failed
	}
	failed.RollbackErr = tx.backIntoUse(ctx)
	failed.RolledBack = failed.RollbackErr == nil
	// The files are as they were, so the snapshot has done its work whatever the
	// program does.
	if err := tx.end(); err != nil {
		tx.log.Warn("recording the end of a rollback failed", "err", err)
	}
	return failed
}

// backIntoUse makes the program use the old files. Where there is a probe, the
// wire decides: a reload that fails, because the program is not running or its
// configuration is broken, matters only if something else than before is served.
func (tx *transaction) backIntoUse(ctx context.Context) error {
	if !tx.told && !tx.servesNew(ctx) {
		return nil
	}
	env := tx.environment(tx.task, actionRollBack, tx.record.OnDisk)
	reloadErr := tx.run(ctx, stepReload, tx.reload, env)
	if tx.probe == nil {
		return reloadErr
	}
	wanted := slices.DeleteFunc([]string{tx.record.OnDisk, tx.record.Served}, func(s string) bool { return s == "" })
	if tx.record.Served == "" || len(wanted) == 0 {
		return nil // nothing was in service
	}
	if err := tx.awaitServed(ctx, wanted...); err != nil {
		return errors.Join(reloadErr, err)
	}
	return nil
}

// servesNew looks whether the program, restarted by somebody else just now, has
// read the new files without having been told to.
func (tx *transaction) servesNew(ctx context.Context) bool {
	if tx.probe == nil || tx.plan == nil {
		return false
	}
	found, err := tx.served(ctx)
	return err == nil && found == tx.plan.fingerprint && found != tx.record.Served
}

func prepareError(err error) *deploy.Error {
	failed := newError(deploy.StagePrepare, err)
	failed.RolledBack = true
	return failed
}

func newError(stage deploy.Stage, err error) *deploy.Error {
	failed := &deploy.Error{Stage: stage, Err: err, Mend: mendFor(err)}
	var command *command.Error
	if errors.As(err, &command) {
		failed.Output = command.Output
		if command.TimedOut {
			failed.Mend = "raise the command's time limit, or find out what it waits for"
		}
	}
	return failed
}
