//go:build unix

package crashtest

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"

	"github.com/certctl/certctl/shared/durable"
)

// kept is what a place was promised to have. It is told by the steps of its
// deployments, and by nothing that the agent says of them.
type kept struct {
	mu sync.Mutex
	// was is the pair from before the transaction that was opened last, and proven
	// the one that has been verified in it; "" if there is none.
	was, proven string
	// opened counts the transactions. None is open at a moment at which none had
	// been left open and none was opened since.
	opened int
	// failed says that the last attempt came to the check, and did not verify.
	failed bool
}

func (k *kept) copy() *kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &kept{was: k.was, proven: k.proven, opened: k.opened, failed: k.failed}
}

// pair is what disk and program hold while no transaction is open: the last pair
// that was verified, and after an attempt that failed the one of before.
func (k *kept) pair() string {
	if k.proven != "" {
		return k.proven
	}
	return k.was
}

func (k *kept) look() (pair string, opened int, failed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pair(), k.opened, k.failed
}

// begins is told of a step before it. What an interrupted attempt had verified
// is in question again when the next one goes on with its transaction.
func (k *kept) begins(step durable.Step, open bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch step {
	case "deploy/file: open transaction":
		k.was, k.proven = k.pair(), ""
		k.opened++
	case "deploy/file: check":
		k.failed = true
		if open {
			k.proven = ""
		}
	}
}

// verified is told that the attempt has succeeded with what is served now.
func (k *kept) verified(served string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.proven, k.failed = served, false
}

// transactionOpen reports whether a deployment to the place has left word of how
// to go back.
func (w *world) transactionOpen(p *place) bool {
	records, err := filepath.Glob(filepath.Join(w.root, "state", "snapshots", "*", "snapshot-*", "record.json"))
	if err != nil {
		return false
	}
	at := filepath.Join(w.root, "www", p.id)
	for _, path := range records {
		record, err := os.ReadFile(path)
		if err == nil && (bytes.Contains(record, []byte(at+"/")) || bytes.Contains(record, []byte(at+`"`))) {
			return true
		}
	}
	return false
}
