package standing

import (
	"fmt"

	"golang.org/x/sys/windows"
)

// room is how much of the volume of a directory can be written yet, and how much
// there is.
func room(dir string) (free, total uint64, err error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err == nil {
		err = windows.GetDiskFreeSpaceEx(path, &free, &total, nil)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("look for room in %s: %w", dir, err)
	}
	return free, total, nil
}
