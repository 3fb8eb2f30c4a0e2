package store

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/wire"
)

const (
	crashChildEnv = "CERTCTL_TEST_STORE_CRASH_CHILD"
	crashNames    = 5
)

// crashChild writes until it is killed, and says after each commit that it is
// done. Each write moves one of a few counters, emits a fact, and now and then
// removes a certificate, so that pages are freed and used again.
func crashChild(path string) error {
	s, err := Open(path, Options{OutboxLimit: 50})
	if err != nil {
		return err
	}
	for n := uint64(0); ; n++ {
		name := fmt.Sprintf("certificate-%d", n%crashNames)
		if n%17 == 16 {
			if _, err := remove(s, name, wire.Event{Kind: wire.EventRemoved, Certificate: name}); err != nil {
				return err
			}
			fmt.Printf("removed %s\n", name)
			continue
		}
		var count uint64
		err := s.Update(name, func(tx *CertificateTx) error {
			tx.Record.Renewals++
			count = tx.Record.Renewals
			tx.Record.LastError = strings.Repeat("x", int(n*37%3000))
			tx.Record.NextAction = time.Now()
			tx.Emit(wire.Event{Kind: wire.EventRenewed, Certificate: name})
			return nil
		})
		if err != nil {
			return err
		}
		fmt.Printf("%s %d\n", name, count)
	}
}

// TestKilledAtAnyMoment kills a process that writes, again and again on the same
// file, and requires that everything that it reported as done is there, and
// nothing but at most the one write that it had not yet reported.
func TestKilledAtAnyMoment(t *testing.T) {
	path := testPath(t)
	want := map[string]uint64{}
	total := 0
	for round := range 30 {
		acknowledged := runAndKill(t, path, rand.N(40))
		total += len(acknowledged)
		for _, line := range acknowledged {
			name, count, ok := strings.Cut(line, " ")
			require.True(t, ok, "%q", line)
			if name == "removed" {
				delete(want, count)
				continue
			}
			n, err := strconv.ParseUint(count, 10, 64)
			require.NoError(t, err)
			require.Equal(t, want[name]+1, n, "round %d: %s", round, line)
			want[name] = n
		}
		s := openAt(t, path, Options{OutboxLimit: 50})
		ahead := 0
		for i := range crashNames {
			name := fmt.Sprintf("certificate-%d", i)
			record, found, err := s.Certificate(name)
			require.NoError(t, err)
			var has uint64
			if found {
				has = record.Renewals
			}
			if has != want[name] {
				ahead++
				require.True(t, has == want[name]+1 || has == 0, "round %d: %s has %d, reported were %d", round, name, has, want[name])
				if want[name] = has; has == 0 {
					delete(want, name)
				}
			}
		}
		require.LessOrEqual(t, ahead, 1, "one write at most was not reported")
		require.NoError(t, s.Close())
	}
	require.Greater(t, total, 100, "the children did write")
}

// runAndKill returns the complete lines that the child printed. It is killed
// once it printed more than after.
func runAndKill(t *testing.T, path string, after int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), crashChildEnv+"="+path)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var lines []string
	reader := bufio.NewReader(out)
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			break
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
		if len(lines) == after+1 {
			require.NoError(t, cmd.Process.Kill())
		}
	}
	require.Error(t, cmd.Wait(), "it was killed")
	require.Empty(t, stderr.String())
	require.Greater(t, len(lines), after)
	return lines
}
