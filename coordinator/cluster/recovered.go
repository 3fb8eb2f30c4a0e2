package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/certctl/certctl/shared/durable"
)

// recoveredFile is what recoveryFile becomes when all is done in the directory.
// It stays, so that a node knows that it was recovered.
const recoveredFile = "recovered.json"

// Recovered is the last recovery of a node.
type Recovered struct {
	Recovery
	// SettledAt is when the cluster that came of it had parted from the old one;
	// zero while that is still to be done by the node when it leads.
	SettledAt time.Time `json:"settled_at,omitzero"`
}

// LastRecovery is the last recovery that was done in a directory, if there was one.
func LastRecovery(dir string) (r Recovered, ok bool, err error) {
	path := filepath.Join(dir, recoveredFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Recovered{}, false, nil
	}
	if err != nil {
		return Recovered{}, false, fmt.Errorf("recovery: %w", err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return Recovered{}, false, fmt.Errorf("%s cannot be read: %w; remove it, then remove the nodes that were lost with \"certctl cluster remove\"", path, err)
	}
	if r.Version != recoveryVersion {
		return Recovered{}, false, fmt.Errorf("%s is of version %d, known is %d; use the program that recovered the node", path, r.Version, recoveryVersion)
	}
	return r, true, nil
}

// SettleRecovery notes that the last recovery is settled. It may be repeated.
func SettleRecovery(dir string, now time.Time) error {
	r, ok, err := LastRecovery(dir)
	if err != nil || !ok || !r.SettledAt.IsZero() {
		return err
	}
	r.SettledAt = now.UTC().Truncate(time.Second)
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, recoveredFile), text, 0o600); err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	return nil
}
