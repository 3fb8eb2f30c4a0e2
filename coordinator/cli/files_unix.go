//go:build !windows

package cli

import "io/fs"

// insecure reports whether others than the owner may read a file.
func insecure(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }
