//go:build unix

package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// Nobody but the owner and the group may read a key, and nobody but them may
// change a certificate.
const (
	forbiddenForKeys         fs.FileMode = 0o007
	forbiddenForCertificates fs.FileMode = 0o002
)

// openAtOnce keeps the opening of a named pipe from waiting for its other end.
const openAtOnce = syscall.O_NONBLOCK

// access is who may use the files, as configured.
type access struct {
	owner, group  string
	mode, keyMode fs.FileMode
}

func newAccess(config Config) (access, error) {
	var problems []error
	if config.WindowsAccount != "" {
		problems = append(problems, errors.New("files.windows_account: only Windows has it; use group and key_mode here"))
	}
	if err := checkMode(config.Mode, forbiddenForCertificates, "everybody could change the certificate; use 0644"); err != nil {
		problems = append(problems, fmt.Errorf("files.mode %w", err))
	}
	if err := checkMode(config.KeyMode, forbiddenForKeys, "everybody could use the private key; use 0600, or 0640 with a group"); err != nil {
		problems = append(problems, fmt.Errorf("files.key_mode %w", err))
	}
	return access{owner: config.Owner, group: config.Group, mode: config.Mode, keyMode: config.KeyMode}, errors.Join(problems...)
}

func checkMode(mode fs.FileMode, forbidden fs.FileMode, why string) error {
	switch {
	case mode == 0:
		return nil
	case mode != mode.Perm():
		return fmt.Errorf("%#o: only permission bits, such as 0640, can be set", uint32(mode))
	case mode&0o400 == 0:
		return fmt.Errorf("%#o: the owner must be able to read the file", uint32(mode))
	case mode&forbidden != 0:
		return fmt.Errorf("%#o: %s", uint32(mode), why)
	}
	return nil
}

// want decides the attributes of a file that replaces before.
func (a access) want(k kind, before observed) (attributes, error) {
	want := attributes{Mode: DefaultMode, UID: os.Geteuid(), GID: os.Getegid()}
	configured := a.mode
	if k.secret() {
		want.Mode, configured = DefaultKeyMode, a.keyMode
	}
	if before.exists {
		want = before.attributes
		if k.secret() && configured == 0 && before.Mode&forbiddenForKeys != 0 {
			return attributes{}, fmt.Errorf("everybody can read the private key that is there now (mode %#o): run \"chmod o=\" on it, or set key_mode", uint32(before.Mode))
		}
	}
	if configured != 0 {
		want.Mode = configured
		// The list would bring its own idea of the mode along.
		want.Extended = withoutList(want.Extended)
	}
	var err error
	if a.owner != "" {
		if want.UID, err = lookUp(a.owner, userID); err != nil {
			return attributes{}, fmt.Errorf("owner: %w", err)
		}
	}
	if a.group != "" {
		if want.GID, err = lookUp(a.group, groupID); err != nil {
			return attributes{}, fmt.Errorf("group: %w", err)
		}
	}
	return want, nil
}

// CheckOwner reports a user that is not there, or not yet; "" is none.
func CheckOwner(name string) error { return checkName(name, userID) }

// CheckGroup reports a group that is not there, or not yet; "" is none.
func CheckGroup(name string) error { return checkName(name, groupID) }

func checkName(name string, byName func(string) (string, error)) error {
	if name == "" {
		return nil
	}
	_, err := lookUp(name, byName)
	return err
}

func userID(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func groupID(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}

// lookUp turns a name or a number into an id. It is done at each deployment,
// since the package that creates the user may come later than the agent.
func lookUp(name string, byName func(string) (string, error)) (int, error) {
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(id), nil
	}
	text, err := byName(name)
	if err != nil {
		return 0, fmt.Errorf("%w; create it, or name another one", err)
	}
	id, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q has the id %q, which is no number", name, text)
	}
	return int(id), nil
}

// checkPlanted refuses to give the key to whoever put a file in its place. In a
// directory like /tmp anybody can: the owner of what is there would own the key.
func (a access) checkPlanted(where string, before observed, want attributes) error {
	if !before.exists || trustedUser(before.UID) || a.owner != "" && before.UID == want.UID {
		return nil
	}
	dir := filepath.Dir(where)
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("looking at the directory: %w", err)
	}
	if info.Mode().Perm()&0o002 == 0 {
		return nil
	}
	return fmt.Errorf("it belongs to user id %d, who may have put it there to get the key, since every user can write to %s: remove it, or keep the key in another directory", before.UID, dir)
}

// trustedUser: root, or the user that the agent runs as.
func trustedUser(uid int) bool { return uid == 0 || uid == os.Geteuid() }

func attributesOf(f *os.File, info fs.FileInfo) (attributes, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return attributes{}, fmt.Errorf("the owner of %s cannot be found out on this system", f.Name())
	}
	extended, err := readExtended(f)
	if err != nil {
		return attributes{}, fmt.Errorf("reading the access list of %s: %w", f.Name(), err)
	}
	return attributes{Mode: info.Mode().Perm(), UID: int(st.Uid), GID: int(st.Gid), Extended: extended}, nil
}

// set gives an open, empty file its attributes: the owner first, because giving
// a file away clears bits of the mode.
func (a access) set(f *os.File, want attributes, _ kind) error {
	if err := f.Chown(want.UID, want.GID); err != nil {
		return fmt.Errorf("owner %d, group %d: %w", want.UID, want.GID, err)
	}
	if err := f.Chmod(want.Mode); err != nil {
		return err
	}
	return writeExtended(f, want.Extended)
}

// checkTrusted returns an error if another user than root and the agent's own
// can replace files in dir, or dir itself, by changing one of the directories
// on the way to it: such a user could make the agent overwrite any file.
func checkTrusted(dir string) error {
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("looking at the directory: %w", err)
	}
	for _, start := range []string{dir, resolved} {
		for d := start; ; d = filepath.Dir(d) {
			if err := checkOne(d); err != nil {
				return err
			}
			if d == filepath.Dir(d) {
				break
			}
		}
	}
	return nil
}

func checkOne(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("looking at the directory: %w", err)
	}
	if info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("every user can replace files in the directory %s: run \"chmod o-w %s\", or name files in another directory", dir, dir)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !trustedOwner(st.Uid) {
		return fmt.Errorf("the directory %s belongs to another user, who could make the agent overwrite other files: run \"chown root %s\", or name files in another directory", dir, dir)
	}
	return nil
}

// trustedOwner: an agent that is not root cannot be made to do more than the
// owner of a directory whom its operator chose to trust with it.
func trustedOwner(uid uint32) bool {
	return os.Geteuid() != 0 || uid == 0
}

// linkTrusted reports whether a symbolic link was made by root or the agent's
// user. In a directory like /tmp it may be anybody's.
func linkTrusted(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && trustedUser(int(st.Uid))
}
