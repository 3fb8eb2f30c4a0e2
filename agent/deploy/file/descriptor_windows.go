package file

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// descriptorName is the owner and the access list of a file among its extended
// attributes, in the security descriptor definition language.
const descriptorName = "windows.descriptor"

func readDescriptor(f *os.File) ([]byte, error) {
	sd, err := windows.GetSecurityInfo(windows.Handle(f.Fd()), windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return nil, err
	}
	text := sd.String()
	if text == "" {
		return nil, fmt.Errorf("they cannot be put in words: %w", windows.ERROR_INVALID_SECURITY_DESCR)
	}
	return []byte(text), nil
}

// writeDescriptor sets what readDescriptor found.
func writeDescriptor(path, text string, k kind) error {
	sd, err := windows.SecurityDescriptorFromString(text)
	if err != nil {
		return fmt.Errorf("the access list to carry over to %s: %w", path, err)
	}
	control, _, err := sd.Control()
	if err != nil {
		return fmt.Errorf("the access list to carry over to %s: %w", path, err)
	}
	if control&windows.SE_DACL_PROTECTED != 0 {
		return apply(path, sd, windows.PROTECTED_DACL_SECURITY_INFORMATION)
	}
	if k.secret() {
		// What the directory passes on by now was not looked at.
		if err := makeOwn(sd); err != nil {
			return fmt.Errorf("the access list to carry over to %s: %w", path, err)
		}
		return apply(path, sd, windows.PROTECTED_DACL_SECURITY_INFORMATION)
	}
	return apply(path, sd, windows.UNPROTECTED_DACL_SECURITY_INFORMATION)
}

// makeOwn turns entries that came from the directory into the file's own.
func makeOwn(sd *windows.SECURITY_DESCRIPTOR) error {
	return entries(sd, func(ace *windows.ACCESS_ALLOWED_ACE) { ace.Header.AceFlags &^= windows.INHERITED_ACE })
}

// entries shows each entry of an access list. One that is not there has none.
func entries(sd *windows.SECURITY_DESCRIPTOR, show func(*windows.ACCESS_ALLOWED_ACE)) error {
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	if dacl == nil {
		return nil
	}
	for i := range uint32(dacl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(dacl, i, &ace); err != nil {
			return err
		}
		show(ace)
	}
	return nil
}

// everybodyIn returns the first of those who are more or less everybody that an
// access list lets read, or make himself a reader; "" is none.
func everybodyIn(sd *windows.SECURITY_DESCRIPTOR) (string, error) {
	const reading = windows.FILE_READ_DATA | windows.WRITE_DAC | windows.WRITE_OWNER | windows.GENERIC_READ | windows.GENERIC_ALL
	if dacl, _, err := sd.DACL(); err != nil || dacl == nil {
		return everybody[0], nil // no list shuts nobody out
	}
	found := ""
	err := entries(sd, func(ace *windows.ACCESS_ALLOWED_ACE) {
		if ace.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE || ace.Mask&reading == 0 ||
			ace.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 || found != "" {
			return
		}
		sid := (*windows.SID)(unsafe.Pointer(&ace.SidStart)).String()
		for _, e := range everybody {
			if sid == e {
				found = sid
			}
		}
	})
	return found, err
}

// everybody: Everyone, Authenticated Users, Users, Guests, Anonymous, Network
// and Interactive.
var everybody = []string{"S-1-1-0", "S-1-5-11", "S-1-5-32-545", "S-1-5-32-546", "S-1-5-7", "S-1-5-2", "S-1-5-4"}

// apply sets the access list of sd, and its owner if that is another one than
// the file has; a new file belongs to the agent's user or the administrators.
func apply(path string, sd *windows.SECURITY_DESCRIPTOR, protection windows.SECURITY_INFORMATION) error {
	var what windows.SECURITY_INFORMATION
	dacl, _, err := sd.DACL()
	if err == nil && dacl != nil {
		what = windows.DACL_SECURITY_INFORMATION | protection
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return fmt.Errorf("the owner of %s: %w", path, err)
	}
	do := func() error {
		return windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, what, owner, nil, dacl, nil)
	}
	if owner != nil {
		now, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
		if err != nil {
			return fmt.Errorf("reading the owner of %s: %w", path, err)
		}
		mine, _, err := now.Owner()
		if err != nil {
			return fmt.Errorf("reading the owner of %s: %w", path, err)
		}
		if owner.Equals(mine) {
			owner = nil
		}
	}
	if owner != nil {
		what |= windows.OWNER_SECURITY_INFORMATION
		set := do
		do = func() error {
			// SYSTEM and the administrators may, but must say so.
			return winio.RunWithPrivileges([]string{winio.SeRestorePrivilege, "SeTakeOwnershipPrivilege"}, set)
		}
	}
	if what == 0 {
		return nil
	}
	if err := do(); err != nil {
		if owner != nil {
			return fmt.Errorf("setting the access list of %s and its owner, %s: %w; run the agent as SYSTEM", path, owner, err)
		}
		return fmt.Errorf("setting the access list of %s: %w", path, err)
	}
	return nil
}
