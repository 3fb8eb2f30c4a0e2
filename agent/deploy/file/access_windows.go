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

// want carries the owner and the access list of before over to the file that
// replaces it, unless that is a key and the configuration says who may read it.
func (a access) want(k kind, before observed) (attributes, error) {
	anew := attributes{UID: durable.Keep, GID: durable.Keep}
	text, ok := before.Extended[descriptorName]
	if !ok || k.secret() && a.windowsAccount != "" {
		return anew, nil
	}
	if k.secret() {
		sd, err := windows.SecurityDescriptorFromString(string(text))
		if err != nil {
			return attributes{}, fmt.Errorf("the access list that is there now: %w", err)
		}
		owner, err := durable.OwnedByOther(sd)
		if err != nil {
			return attributes{}, err
		}
		if owner != "" {
			// He may have put the file there to get the key.
			return anew, nil
		}
		reader, err := everybodyIn(sd)
		if err != nil {
			return attributes{}, err
		}
		if reader != "" {
			return attributes{}, fmt.Errorf("everybody can read the private key that is there now (access list entry of %[1]s): run "+
				"\"icacls\" on it with \"/inheritance:r /remove:g *%[1]s /grant:r *S-1-5-18:F *S-1-5-32-544:F\" and grant the program's "+
				"account what it needs, or set windows_account", reader)
		}
	}
	anew.Extended = map[string][]byte{descriptorName: text}
	return anew, nil
}

// checkPlanted has nothing to refuse: want carries nothing over from a file that
// somebody else may have put in a key's place.
func (access) checkPlanted(string, observed, attributes) error { return nil }

func attributesOf(f *os.File, _ fs.FileInfo) (attributes, error) {
	text, err := readDescriptor(f)
	if err != nil {
		return attributes{}, fmt.Errorf("reading the owner and the access list of %s: %w", f.Name(), err)
	}
	return attributes{UID: durable.Keep, GID: durable.Keep, Extended: map[string][]byte{descriptorName: text}}, nil
}

// set gives an open, empty file the owner and the access list of the file that
// it replaces. Without those, a file with a key is for SYSTEM, the
// administrators, the agent's user and the configured account, and any other
// file has what its directory passes on.
func (a access) set(f *os.File, want attributes, k kind) error {
	if text, ok := want.Extended[descriptorName]; ok {
		return writeDescriptor(f.Name(), string(text), k)
	}
	if !k.secret() {
		return nil
	}
	sd, err := a.keyDescriptor()
	if err != nil {
		return err
	}
	return apply(f.Name(), sd, windows.PROTECTED_DACL_SECURITY_INFORMATION)
}

// keyDescriptor is what a new file with a key gets.
func (a access) keyDescriptor() (*windows.SECURITY_DESCRIPTOR, error) {
	var readers []*windows.SID
	if a.windowsAccount != "" {
		sid, _, _, err := windows.LookupSID("", a.windowsAccount)
		if err != nil {
			return nil, fmt.Errorf("windows_account %q: %w; create it, or name another one", a.windowsAccount, err)
		}
		readers = append(readers, sid)
	}
	return durable.PrivateDescriptor(false, readers...)
}

// checkTrusted leaves the judgement to the access lists of the directories:
// Windows lets only administrators make symbolic links.
func checkTrusted(string) error { return nil }

func linkTrusted(fs.FileInfo) bool { return true }
