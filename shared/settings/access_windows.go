package settings

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/windows"

	"github.com/certctl/certctl/shared/durable"
)

// changing are the rights to change a file or what is in a directory (FILE_WRITE_DATA is FILE_ADD_FILE there,
// FILE_APPEND_DATA is FILE_ADD_SUBDIRECTORY), to put something else in its place, or to give oneself these rights.
const changing windows.ACCESS_MASK = windows.FILE_WRITE_DATA | windows.FILE_APPEND_DATA | fileDeleteChild |
	windows.DELETE | windows.WRITE_DAC | windows.WRITE_OWNER | windows.GENERIC_WRITE | windows.GENERIC_ALL

const fileDeleteChild = 0x40

// checkWriters refuses a file or directory that others than SYSTEM, the administrators and this process's user may
// change.
func checkWriters(path string, _ os.FileInfo, dir bool) error {
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("cannot tell who may write %s: %w", path, err)
	}
	owner, err := durable.OwnedByOther(sd)
	if err != nil {
		return fmt.Errorf("cannot tell who may write %s: %w", path, err)
	}
	if owner != "" {
		return &AccessError{Path: path,
			Problem: fmt.Sprintf("belongs to %s, who could have this program do anything", owner),
			Mend:    fmt.Sprintf("run \"takeown /a /f %s\" as an administrator", path)}
	}
	other, err := durable.GrantedToOthers(sd, changing)
	if err != nil {
		return fmt.Errorf("cannot tell who may write %s: %w", path, err)
	}
	if other == "" {
		return nil
	}
	inherit, remove := "", ""
	if dir {
		inherit = "(OI)(CI)"
	}
	if strings.HasPrefix(other, "S-") {
		// /inheritance:r takes away only what comes from the directory above.
		remove = " /remove:g *" + other
	}
	return &AccessError{Path: path,
		Problem: fmt.Sprintf("may be written by %s, who could have this program do anything", other),
		Mend: fmt.Sprintf("run \"icacls %[1]s /inheritance:r%[3]s /grant:r *S-1-5-18:%[2]sF *S-1-5-32-544:%[2]sF\" as an administrator, "+
			"and look at what was written", path, inherit, remove)}
}

// checkReaders has nothing to say on Windows, where the mode says nothing: who may read a secret follows from the access
// rules of its directory, which the administrator sets.
func checkReaders(string, os.FileInfo) error { return nil }
