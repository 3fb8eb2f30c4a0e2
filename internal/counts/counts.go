// Package counts lets tests of whole properties say how much they covered: crash points, kills survived, duplicate
// orders. `go test` without -v hides what a test that passed logs, and a property that was proven over nothing passes
// too, so scripts/test.sh collects these numbers and prints them at its end.
package counts

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// FileEnv names the environment variable with the file that Report appends to. Nothing is written where it is not set.
const FileEnv = "CERTCTL_COUNTS_FILE"

// Report logs a number and, where FileEnv is set, appends it to that file as one line: name, tabulator, number,
// tabulator, what it counts. Names are lower case with hyphens, such as "duplicate-orders"; every test that reports
// under a name adds a line of its own. It may be called from several goroutines and by several processes: a line is
// appended in one write.
func Report(t testing.TB, name string, number int, what string) {
	t.Helper()
	if name == "" || what == "" || strings.ContainsAny(name+what, "\t\r\n") {
		t.Fatalf("count %q, %q: want a name and what it counts, both without tabulators and line ends", name, what)
	}
	t.Logf("%s: %d (%s)", name, number, what)
	path := os.Getenv(FileEnv)
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatalf("count %s: open the file that %s names: %v", name, FileEnv, err)
	}
	_, err = fmt.Fprintf(f, "%s\t%d\t%s\n", name, number, what)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		t.Fatalf("count %s: append to %s: %v", name, path, err)
	}
}
