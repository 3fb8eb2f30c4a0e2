// Package crashsteps says which durable steps are cut off by other tests than
// those of internal/crashtest, and has these tests show that they come to them.
package crashsteps

import (
	"maps"
	"slices"
	"testing"
)

// Elsewhere are the durable steps that no scenario of internal/crashtest comes
// to, with the names of the tests that cut them off instead. Such a test calls
// Require. They are texts, and not a durable.Step, for the tests of package
// durable itself.
var Elsewhere = map[string]string{
	// durable.WriteFile has no hook but in its own tests; for who calls it, it is
	// a part of one step.
	"durable: create temporary file": inWriteFile,
	"durable: set owner and mode":    inWriteFile,
	"durable: write":                 inWriteFile,
	"durable: sync":                  inWriteFile,
	"durable: close":                 inWriteFile,
	"durable: rename":                inWriteFile,
	"durable: sync directory":        inWriteFile,
	// Files that do not fit in memory are the coordinator's.
	"durable: read back": inPending,

	// What the centre commands is carried out by package command.
	"store: commit commands":          ofCommand,
	"store: commit change of command": ofCommand,
}

const (
	inWriteFile = "TestWriteFileCrashAtEachStep"
	inPending   = "TestAPendingFileIsThereWholeOrNotAtAll"
	ofCommand   = "TestCrashAtEveryStepOfACommand"
)

// Require fails unless the steps that a test was cut off at are at least those
// that Elsewhere says it covers.
func Require[S ~string](t testing.TB, met map[S]int) {
	t.Helper()
	covers := false
	for _, step := range slices.Sorted(maps.Keys(Elsewhere)) {
		if Elsewhere[step] != t.Name() {
			continue
		}
		covers = true
		if met[S(step)] == 0 {
			t.Errorf("the durable step %q is said to be covered here, and was never met", step)
		}
	}
	if !covers {
		t.Errorf("nothing is said to be covered by %s", t.Name())
	}
}
