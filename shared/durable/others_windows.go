package durable

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// trustedInstaller owns what came with Windows, and only a service of Windows can be it.
const trustedInstaller = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"

// OwnedByOther says who a file or directory belongs to, if that is neither SYSTEM nor the administrators nor the user of
// this process; "" is one of them. An owner can give himself every other access.
func OwnedByOther(sd *windows.SECURITY_DESCRIPTOR) (string, error) {
	trusted, err := trustedSIDs()
	if err != nil {
		return "", err
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return "", fmt.Errorf("find out the owner: %w", err)
	}
	if owner == nil {
		return "", errors.New("find out the owner: there is none")
	}
	if contains(trusted, owner) || owner.String() == trustedInstaller {
		return "", nil
	}
	return owner.String(), nil
}

// GrantedToOthers says who else than SYSTEM, the administrators and the user of this process has one of the rights on
// what sd belongs to; "" is nobody. What is only for files made in a directory later does not count. Rules that deny
// are not set off against others: whoever is granted something may not be whom they speak of.
func GrantedToOthers(sd *windows.SECURITY_DESCRIPTOR, rights windows.ACCESS_MASK) (string, error) {
	trusted, err := trustedSIDs()
	if err != nil {
		return "", err
	}
	dacl, _, err := sd.DACL()
	if err != nil && !errors.Is(err, windows.ERROR_OBJECT_NOT_FOUND) {
		return "", fmt.Errorf("read the access rules: %w", err)
	}
	if dacl == nil {
		return "everybody, since it has no access rules", nil
	}
	for i := range uint32(dacl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(dacl, i, &ace); err != nil {
			return "", fmt.Errorf("read the access rules: %w", err)
		}
		// All kinds of rules begin with the rights.
		if ace.Mask&rights == 0 || ace.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 {
			continue
		}
		if ace.Header.AceType == windows.ACCESS_ALLOWED_ACE_TYPE &&
			(*windows.SID)(unsafe.Pointer(&ace.SidStart)).String() == trustedInstaller {
			continue
		}
		if other := grantsOther(ace, trusted); other != "" {
			return other, nil
		}
	}
	return "", nil
}
