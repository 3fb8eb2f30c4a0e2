package settings

import "syscall"

// Of statfs(2).
const (
	tmpfsMagic   = 0x01021994
	ramfsMagic   = 0x858458f6
	readOnlyFlag = 0x0001 // ST_RDONLY
)

// readOnlyMemory reports whether a file is on a file system in memory that is mounted read-only.
func readOnlyMemory(path string) bool {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return false
	}
	kind := uint32(fs.Type) //nolint:gosec // the numbers have 32 bits, and the field has as many as the processor
	return (kind == tmpfsMagic || kind == ramfsMagic) && fs.Flags&readOnlyFlag != 0
}
