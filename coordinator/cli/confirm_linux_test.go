package cli

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/certctl/certctl/coordinator/api/apitest"
)

// terminal opens a pseudo terminal: what is written to keys is typed at screen.
func terminal(t *testing.T) (keys, screen *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { keys.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { screen.Close() })
	return keys, screen
}

// At a terminal somebody is asked, and only "yes" is a yes.
func TestConfirmAtATerminal(t *testing.T) {
	c := apitest.Start(t)
	p := logIn(t, c)
	p.does("assignments", "apply", "-f", p.write("x.yaml", "name: x\nselector: '*'\ncertificate: {names: [a.example.com]}\n"))
	keys, screen := terminal(t)
	stdin := os.Stdin
	os.Stdin = screen
	defer func() { os.Stdin = stdin }()
	for _, answer := range []string{"y\n", "\n", "yes please\n", "no\n"} {
		_, err := keys.WriteString(answer)
		require.NoError(t, err)
		_, errs, status := p.run("assignments", "delete", "x")
		assert.Equal(t, 1, status)
		assert.Equal(t, "x is deleted; no host has it\nGo on? Type yes: certctl: nothing was done: the answer was not yes\n", errs)
	}
	_, err := keys.WriteString("yes\n")
	require.NoError(t, err)
	var out, errs bytes.Buffer
	assert.Zero(t, Execute([]string{"assignments", "delete", "x"}, &out, &errs))
	assert.Equal(t, "x is deleted; no host has it\n", out.String())
	assert.Contains(t, p.fails(1, "assignments", "show", "x"), "not_found")
}
