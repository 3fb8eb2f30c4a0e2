package daemon

import "context"

// Exported is up to which log index the database has the facts, as this node knows.
func (d *Daemon) Exported(ctx context.Context) (uint64, error) { return d.exported(ctx) }
