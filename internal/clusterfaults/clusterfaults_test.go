package clusterfaults

import (
	"flag"
	"regexp"
	"slices"
	"testing"
	"time"
)

var only = flag.String("faults", "", "inject only faults whose names match this regular expression")

// Clients work on a cluster, every fault happens to it in an order drawn at
// random, and in the end nothing that a client was told is missing, nothing
// happened twice, all nodes are equal, no term had two leaders, and there is an
// order of all operations that explains every answer.
func TestFaults(t *testing.T) {
	t.Parallel()
	b := newBench(t, seedOf(t), &nodes{root: t.TempDir()})
	proveFaults(b, times(1, 20), "cluster-faults")
}

func seedOf(t testing.TB) uint64 {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return seed
}

// proveFaults lets all faults happen some times, and counts under a name.
func proveFaults(b *bench, rounds int, name string) {
	wanted := regexp.MustCompile(*only)
	all := slices.DeleteFunc(faults(), func(f fault) bool { return !wanted.MatchString(f.name) })
	injected := 0
	var sum findings
	for range rounds {
		l := startLoad(b, 6, b.random.Uint64(), true)
		for _, i := range b.random.Perm(len(all)) {
			l.progress(3)
			end := l.history.Note(all[i].name)
			began := time.Now()
			all[i].inject(b, l)
			end()
			injected++
			b.t.Logf("%s: %v", all[i].name, time.Since(began).Round(time.Millisecond))
		}
		l.progress(3)
		l.end()
		sum.add(b.verify(l))
		if b.t.Failed() {
			return
		}
	}
	sum.report(b, name, injected, "faults of nodes, disks, networks and clocks that a cluster of three met under load")
}
