//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// binDir holds the binaries that all tests run.
var binDir string

// binDirEnv names it to a test that runs in a process of its own.
const binDirEnv = "CERTCTL_E2E_BINARIES"

// maxBinary is what a stripped agent may weigh, in octets.
const maxBinary = 20 << 20

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait for other processes nearly all the time, so that more of
	// them fit side by side than there are processors. Whoever says -parallel
	// is obeyed.
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		must(flag.Set("test.parallel", "16"))
	}
	// Under nohup(1) a hangup is ignored, and programs inherit that. What is
	// caught here they get as it is by default.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	if binDir = os.Getenv(binDirEnv); binDir != "" { // a test in a process of its own
		goleak.VerifyTestMain(m)
		return
	}
	dir, err := os.MkdirTemp("", "certctl-e2e-")
	must(err)
	binDir = dir
	must(build())
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		_ = os.RemoveAll(dir)
		os.Exit(status)
	}))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
}

// build makes the binaries as a release does: static and stripped.
func build() error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binDir+string(filepath.Separator),
		module+"/agent/cmd/certctl-agent", module+"/coordinator/cmd/certctl-coordinator", module+"/coordinator/cmd/certctl")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the binaries: %w\n%s", err, out)
	}
	fmt.Printf("built the binaries in %v\n", time.Since(began).Round(time.Millisecond))
	return nil
}
