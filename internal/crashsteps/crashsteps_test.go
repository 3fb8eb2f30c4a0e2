package crashsteps

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// named is a test of another name, which keeps what it is told.
type named struct {
	testing.TB
	name   string
	failed int
}

func (n *named) Name() string          { return n.name }
func (n *named) Helper()               {}
func (n *named) Errorf(string, ...any) { n.failed++ }

func TestRequire(t *testing.T) {
	met := map[string]int{"store: commit commands": 1, "store: commit change of command": 3, "another": 1}
	all := &named{TB: t, name: ofCommand}
	Require(all, met)
	assert.Zero(t, all.failed)
	met["store: commit commands"] = 0
	Require(all, met)
	assert.Equal(t, 1, all.failed, "one was not met")
	nobody := &named{TB: t, name: "TestNothing"}
	Require(nobody, met)
	assert.Equal(t, 1, nobody.failed)
}
