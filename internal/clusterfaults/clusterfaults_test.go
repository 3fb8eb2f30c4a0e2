package clusterfaults

import (
	"testing"
	"time"
)

// Clients work on a cluster, every fault happens to it in an order drawn at
// random, and in the end nothing that a client was told is missing, nothing
// happened twice, all nodes are equal, no term had two leaders, and there is an
// order of all operations that explains every answer.
func TestFaults(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	b := newBench(t, seed)
	all := faults()
	injected := 0
	var sum findings
	for round := range times(1, 20) {
		l := startLoad(b, 6, seed+uint64(round))
		for _, i := range b.random.Perm(len(all)) {
			l.progress(3)
			end := l.history.Note(all[i].name)
			began := time.Now()
			all[i].inject(b, l)
			end()
			injected++
			t.Logf("%s: %v", all[i].name, time.Since(began).Round(time.Millisecond))
		}
		l.progress(3)
		l.end()
		sum.add(b.verify(l))
		if t.Failed() {
			return
		}
	}
	sum.report(b, "cluster-faults", injected, "faults of nodes, disks, networks and clocks that a cluster of three met under load")
}
