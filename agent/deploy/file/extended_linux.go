package file

import (
	"errors"
	"maps"
	"os"

	"golang.org/x/sys/unix"
)

const (
	labelName = "security.selinux"
	listName  = "system.posix_acl_access"
)

// readExtended returns the label and the list of a file, where it has them.
func readExtended(f *os.File) (map[string][]byte, error) {
	var found map[string][]byte
	for _, name := range []string{labelName, listName} {
		value := make([]byte, 4<<10) // a list of 500 entries
		n, err := unix.Fgetxattr(int(f.Fd()), name, value)
		switch {
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP), name == labelName && err != nil:
			continue
		case err != nil:
			return nil, err
		}
		if found == nil {
			found = map[string][]byte{}
		}
		found[name] = value[:n:n]
	}
	return found, nil
}

// writeExtended sets what readExtended found. A label that the kernel refuses is
// let go, since the policy of the machine then decides it anyway; a lost list
// would shut out the program that reads the file.
func writeExtended(f *os.File, extended map[string][]byte) error {
	for name, value := range extended {
		if err := unix.Fsetxattr(int(f.Fd()), name, value, 0); err != nil && name != labelName {
			return &os.PathError{Op: "setting the access list of", Path: f.Name(), Err: err}
		}
	}
	return nil
}

func withoutList(extended map[string][]byte) map[string][]byte {
	kept := maps.Clone(extended)
	delete(kept, listName)
	return kept
}
