package cli

import (
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// insecure cannot tell from a mode on Windows, where a user's configuration
// directory is closed to others by its own access list.
func insecure(fs.FileInfo) bool { return false }

// obeysEscapes makes a console take escape sequences, and reports whether it does.
func obeysEscapes(console *os.File) bool {
	var mode uint32
	handle := windows.Handle(console.Fd())
	if windows.GetConsoleMode(handle, &mode) != nil {
		return false
	}
	return windows.SetConsoleMode(handle, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
