package daemon

import (
	"context"

	"github.com/certctl/certctl/coordinator/history"
)

// Exported is up to which log index the database has the facts, as this node knows.
func (d *Daemon) Exported(ctx context.Context) (uint64, error) { return d.exported(ctx) }

// Journal is where this node keeps its facts.
func (d *Daemon) Journal() *history.Journal { return d.directory.journal }
