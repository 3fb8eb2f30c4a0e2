package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
)

// RestrictToAdministrators leaves a file or directory to SYSTEM, the administrators and the user that this process runs
// as, with full access for each, and cuts it off from what its parent directory passes on. What is created in such a
// directory later inherits the restriction.
func RestrictToAdministrators(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("restrict access: %w", err)
	}
	sd, err := PrivateDescriptor(info.IsDir())
	if err != nil {
		return fmt.Errorf("restrict access to %s: %w", path, err)
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return fmt.Errorf("restrict access to %s: %w", path, err)
	}
	if err := windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil); err != nil {
		return fmt.Errorf("restrict access to %s: %w", path, err)
	}
	return nil
}

// PrivateDescriptor returns the security descriptor of a file or directory for SYSTEM, the administrators and this
// process's user, which the given accounts may read.
func PrivateDescriptor(dir bool, readers ...*windows.SID) (*windows.SECURITY_DESCRIPTOR, error) {
	me, err := currentUser()
	if err != nil {
		return nil, err
	}
	inherit := ""
	if dir {
		inherit = "OICI"
	}
	// SDDL: a protected DACL; FA is full file access, FR is to read, SY is SYSTEM, BA are the built-in administrators.
	text := fmt.Sprintf("D:P(A;%[1]s;FA;;;SY)(A;%[1]s;FA;;;BA)(A;%[1]s;FA;;;%[2]s)", inherit, me)
	for _, reader := range readers {
		text += fmt.Sprintf("(A;%s;FR;;;%s)", inherit, reader)
	}
	return windows.SecurityDescriptorFromString(text)
}

// createPrivateDir gives the directory its access rules as it is created: there is no moment at which it is open.
func createPrivateDir(path string) error {
	if err := MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	sd, err := PrivateDescriptor(true)
	if err != nil {
		return err
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	attributes := windows.SecurityAttributes{SecurityDescriptor: sd}
	attributes.Length = uint32(unsafe.Sizeof(attributes))
	if err := windows.CreateDirectory(name, &attributes); err != nil && !errors.Is(err, fs.ErrExist) {
		return &fs.PathError{Op: "mkdir", Path: path, Err: err}
	}
	return nil
}

func checkAccess(path string, _ fs.FileInfo) error {
	unreadable := func(err error) error {
		return &PrivateDirError{Path: path, Problem: "has access rules that cannot be read", Err: err,
			Mend: "give this program's user access to it"}
	}
	trusted, err := trustedSIDs()
	if err != nil {
		return unreadable(err)
	}
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return unreadable(err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return unreadable(err)
	}
	if !contains(trusted, owner) {
		return &PrivateDirError{Path: path,
			Problem: fmt.Sprintf("belongs to %s", owner),
			Mend:    fmt.Sprintf("run \"takeown /a /r /f %s\" as an administrator", path)}
	}
	dacl, _, err := sd.DACL()
	if err != nil && !errors.Is(err, windows.ERROR_OBJECT_NOT_FOUND) {
		return unreadable(err)
	}
	mend := fmt.Sprintf("run \"icacls %s /inheritance:r /grant:r *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F\" as an administrator", path)
	if dacl == nil {
		return &PrivateDirError{Path: path, Problem: "has no access rules, so that everybody may enter it", Mend: mend}
	}
	for i := range uint32(dacl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(dacl, i, &ace); err != nil {
			return unreadable(err)
		}
		if other := grantsOther(ace, trusted); other != "" {
			return &PrivateDirError{Path: path, Problem: "is open to " + other, Mend: mend}
		}
	}
	return nil
}

// grantsOther says to whom else than the trusted an access rule gives anything; "" is nobody.
func grantsOther(ace *windows.ACCESS_ALLOWED_ACE, trusted []*windows.SID) string {
	const accessDenied = 1
	switch ace.Header.AceType {
	case accessDenied:
		return ""
	case windows.ACCESS_ALLOWED_ACE_TYPE:
		sid := (*windows.SID)(unsafe.Pointer(&ace.SidStart))
		// Creator-owner rules speak of whoever creates a file there, which only the trusted can.
		if contains(trusted, sid) || sid.IsWellKnown(windows.WinCreatorOwnerSid) || sid.IsWellKnown(windows.WinCreatorOwnerRightsSid) {
			return ""
		}
		return sid.String()
	default:
		return fmt.Sprintf("somebody through an access rule of kind %d, which this program cannot judge", ace.Header.AceType)
	}
}

func currentUser() (*windows.SID, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("find out this process's user: %w", err)
	}
	return user.User.Sid, nil
}

func trustedSIDs() ([]*windows.SID, error) {
	me, err := currentUser()
	if err != nil {
		return nil, err
	}
	system, err := windows.CreateWellKnownSid(windows.WinLocalSystemSid)
	if err != nil {
		return nil, err
	}
	administrators, err := windows.CreateWellKnownSid(windows.WinBuiltinAdministratorsSid)
	if err != nil {
		return nil, err
	}
	return []*windows.SID{me, system, administrators}, nil
}

func contains(list []*windows.SID, sid *windows.SID) bool {
	for _, s := range list {
		if s.Equals(sid) {
			return true
		}
	}
	return false
}
