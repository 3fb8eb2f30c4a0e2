package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"

	"github.com/certctl/certctl/shared/durable"
)

// openAtOnce is nothing here: named pipes are not found among files.
const openAtOnce = 0

// access is who may use the files, as configured.
type access struct{ windowsAccount string }

func newAccess(config Config) (access, error) {
	var problems []error
	if config.Owner != "" || config.Group != "" {
		problems = append(problems, errors.New("files.owner, files.group: Windows has none; use windows_account"))
	}
	if config.Mode != 0 || config.KeyMode != 0 {
		problems = append(problems, errors.New("files.mode, files.key_mode: Windows has none; access lists protect the files"))
	}
	return access{windowsAccount: config.WindowsAccount}, errors.Join(problems...)
}

// CheckOwner has nothing to say: an owner is refused when a target is made.
func CheckOwner(string) error { return nil }

// CheckGroup has nothing to say, like CheckOwner.
func CheckGroup(string) error { return nil }

// want has nothing to say: set goes by what the file holds.
func (a access) want(kind, observed) (attributes, error) {
	return attributes{UID: durable.Keep, GID: durable.Keep}, nil
}

// checkPlanted has nothing to refuse: no owner is carried over.
func (access) checkPlanted(string, observed, attributes) error { return nil }

// attributesOf knows no access lists: they are set anew on each file that is
// written, so what a file had before makes no difference to the next.
func attributesOf(*os.File, fs.FileInfo) (attributes, error) {
	return attributes{UID: durable.Keep, GID: durable.Keep}, nil
}

// set restricts an open, empty file with a key to SYSTEM, the administrators,
// the agent's user and the configured account.
func (a access) set(f *os.File, _ attributes, k kind) error {
	if !k.secret() {
		return nil
	}
	if err := durable.RestrictToAdministrators(f.Name()); err != nil {
		return err
	}
	if a.windowsAccount == "" {
		return nil
	}
	sid, _, _, err := windows.LookupSID("", a.windowsAccount)
	if err != nil {
		return fmt.Errorf("windows_account %q: %w; create it, or name another one", a.windowsAccount, err)
	}
	sd, err := windows.GetNamedSecurityInfo(f.Name(), windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("reading the access list of %s: %w", f.Name(), err)
	}
	list, _, err := sd.DACL()
	if err != nil {
		return fmt.Errorf("reading the access list of %s: %w", f.Name(), err)
	}
	list, err = windows.ACLFromEntries([]windows.EXPLICIT_ACCESS{{
		AccessPermissions: windows.GENERIC_READ,
		AccessMode:        windows.GRANT_ACCESS,
		Inheritance:       windows.NO_INHERITANCE,
		Trustee:           windows.TRUSTEE{TrusteeForm: windows.TRUSTEE_IS_SID, TrusteeValue: windows.TrusteeValueFromSID(sid)},
	}}, list)
	if err != nil {
		return fmt.Errorf("adding %q to the access list of %s: %w", a.windowsAccount, f.Name(), err)
	}
	if err := windows.SetNamedSecurityInfo(f.Name(), windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, list, nil); err != nil {
		return fmt.Errorf("setting the access list of %s: %w", f.Name(), err)
	}
	return nil
}

// checkTrusted leaves the judgement to the access lists of the directories:
// Windows lets only administrators make symbolic links.
func checkTrusted(string) error { return nil }

func linkTrusted(fs.FileInfo) bool { return true }
