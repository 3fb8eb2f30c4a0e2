//go:build !windows

package cli

import (
	"io/fs"
	"os"
)

// insecure reports whether others than the owner may read a file.
func insecure(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }

// obeysEscapes reports whether a terminal takes escape sequences.
func obeysEscapes(*os.File) bool { return true }
