package main

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestThrift(t *testing.T) {
	processors, percent := runtime.GOMAXPROCS(0), debug.SetGCPercent(100)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(processors)
		debug.SetGCPercent(percent)
	})
	after := func(had int, gogc, gomaxprocs string) (processors, percent int) {
		t.Setenv("GOGC", gogc)
		t.Setenv("GOMAXPROCS", gomaxprocs)
		runtime.GOMAXPROCS(had)
		debug.SetGCPercent(100)
		beThrifty()
		return runtime.GOMAXPROCS(0), debug.SetGCPercent(100)
	}

	processors32, percent32 := after(32, "", "")
	assert.Equal(t, maxProcessors, processors32)
	assert.Equal(t, collectAt, percent32)
	processors1, _ := after(1, "", "")
	assert.Equal(t, 1, processors1, "never more than the host has")
	asked, askedPercent := after(32, "100", "32")
	assert.Equal(t, 32, asked, "whoever sets it is obeyed")
	assert.Equal(t, 100, askedPercent, "whoever sets it is obeyed")
}
