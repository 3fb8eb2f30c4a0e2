//go:build !linux && !windows

package settings

// readOnlyMemory knows no such file systems here.
func readOnlyMemory(string) bool { return false }
