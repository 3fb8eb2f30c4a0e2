// Package keys keeps an agent's private keys, each in a file of its own in one
// directory that nobody else may enter. A key is written once, under a new
// random name, and never changed: the key of a certificate in service is not
// touched by the making of the next one.
//
// No error of this package contains key material.
package keys

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/pki"
)

const (
	suffix  = ".key.pem"
	maxFile = 64 << 10
)

// idPattern is also the guard against ids that lead out of the directory.
var idPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// ErrNotFound says that there is no key of that id.
var ErrNotFound = errors.New("no such key")

// Error is a key file that cannot be used.
type Error struct {
	File    string
	Problem string
	// Mend tells an operator what to do.
	Mend string
	Err  error // the cause, if there is one
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("key file %s %s: %v; %s", e.File, e.Problem, e.Err, e.Mend)
	}
	return fmt.Sprintf("key file %s %s; %s", e.File, e.Problem, e.Mend)
}

func (e *Error) Unwrap() error { return e.Err }

// Dir is a directory of keys. It is safe for concurrent use; keeping a second
// process out is left to the store's lock.
type Dir struct {
	path string
	hook durable.Hook
}

// Steps of making and removing a key.
const (
	stepCreate   durable.Step = "keys: create"
	stepRestrict durable.Step = "keys: restrict"
	stepWrite    durable.Step = "keys: write"
	stepSync     durable.Step = "keys: sync"
	stepClose    durable.Step = "keys: close"
	stepSyncDir  durable.Step = "keys: sync directory"
	stepReadBack durable.Step = "keys: read back"
	stepDiscard  durable.Step = "keys: discard"
	stepRemove   durable.Step = "keys: remove"
)

// OpenDir opens the directory and creates it where it is missing. One that
// belongs to somebody else, that others may enter, or that cannot be written is
// refused with a *durable.PrivateDirError. What a crash left of the test whether
// it can be written is removed, so that the caller holds the store's lock.
func OpenDir(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("key directory %s: %w", path, err)
	}
	if err := durable.EnsurePrivateDir(abs); err != nil {
		return nil, fmt.Errorf("key directory: %w", err)
	}
	if _, err := durable.RemoveStaleTemp(abs); err != nil {
		return nil, fmt.Errorf("key directory %s: %w", abs, err)
	}
	return &Dir{path: abs}, nil
}

// Missing reports whether the directory at path has no key of that id. It changes
// nothing, and does not say whether a key that is there can be read.
func Missing(path, id string) bool {
	_, err := os.Lstat((&Dir{path: path}).file(id))
	return errors.Is(err, fs.ErrNotExist)
}

// WithHook returns the same directory with a hook around each durable step, for
// tests of crashes and failing disks.
func (d *Dir) WithHook(hook durable.Hook) *Dir { return &Dir{path: d.path, hook: hook} }

// Path is the absolute path of the directory.
func (d *Dir) Path() string { return d.path }

func (d *Dir) file(id string) string { return filepath.Join(d.path, id+suffix) }

// Create makes a new key pair and stores it under a new random id. When it
// returns nil, the key is on the disk, with its name, and was read back.
// Otherwise nothing of it is left.
func (d *Dir) Create(alg pki.KeyAlgorithm) (id string, key crypto.Signer, err error) {
	key, err = pki.GenerateKey(alg)
	if err != nil {
		return "", nil, err
	}
	text, err := pki.MarshalKeyPEM(key)
	if err != nil {
		return "", nil, err
	}
	defer clear(text)
	var random [16]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the program instead
	id = hex.EncodeToString(random[:])
	if err := d.write(id, text); err != nil {
		return "", nil, fmt.Errorf("create key: %w", err)
	}
	if err := d.readBack(id, text, key); err != nil {
		return "", nil, errors.Join(fmt.Errorf("create key: %w", err), d.discard(d.file(id)))
	}
	return id, key, nil
}

// write stores text in a file that must not exist yet. After an error, also one
// of the sync, nothing of it is used again: the next key has another file.
func (d *Dir) write(id string, text []byte) (err error) {
	path := d.file(id)
	var f *os.File
	defer func() {
		if err != nil && f != nil {
			f.Close() // a second Close is harmless
			err = errors.Join(err, d.discard(path))
		}
	}()
	for _, step := range []struct {
		name durable.Step
		do   func() error
	}{
		{stepCreate, func() (err error) {
			f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			return err
		}},
		// On Windows a new file has the rights that its directory passes on, so
		// they are set before there is anything to read.
		{stepRestrict, func() error { return durable.RestrictToAdministrators(path) }},
		{stepWrite, func() error { _, err := f.Write(text); return err }},
		{stepSync, func() error { return durable.Sync(f) }},
		{stepClose, func() error { return f.Close() }},
		{stepSyncDir, func() error { return durable.SyncDir(d.path) }},
	} {
		if err := d.hook.Around(step.name, path, step.do); err != nil {
			return fmt.Errorf("%s %s: %w", strings.TrimPrefix(string(step.name), "keys: "), path, err)
		}
	}
	return nil
}

// discard removes a key that nobody has heard of.
func (d *Dir) discard(path string) error {
	return d.hook.Around(stepDiscard, path, func() error { return durable.Remove(path) })
}

func (d *Dir) readBack(id string, text []byte, key crypto.Signer) error {
	var stored []byte
	if err := d.hook.Around(stepReadBack, d.file(id), func() (err error) {
		stored, err = d.read(id)
		return err
	}); err != nil {
		return err
	}
	defer clear(stored)
	again, err := pki.ParseKeyPEM(stored)
	if err != nil || !bytes.Equal(stored, text) || !pki.SamePublicKey(again.Public(), key.Public()) {
		return &Error{File: d.file(id), Problem: "does not read back as it was written", Mend: "check the disk", Err: err}
	}
	return nil
}

// Load reads the key of that id; ErrNotFound if there is none. A file that
// others may read, that belongs to somebody else or that is damaged is an
// *Error.
func (d *Dir) Load(id string) (crypto.Signer, error) {
	text, err := d.read(id)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := pki.ParseKeyPEM(text)
	if err != nil {
		return nil, &Error{File: d.file(id), Problem: "is damaged", Err: err,
			Mend: "restore it from a backup, or force a renewal, which makes a new key"}
	}
	return key, nil
}

func (d *Dir) read(id string) ([]byte, error) {
	if !idPattern.MatchString(id) {
		return nil, fmt.Errorf("key id %.40q is malformed: %w", id, ErrNotFound)
	}
	path := d.file(id)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key file %s: %w", path, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{File: path, Problem: "is not a regular file", Mend: "move it away and restore the key from a backup"}
	}
	if err := checkAccess(path); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	if len(text) > maxFile {
		return nil, &Error{File: path, Problem: fmt.Sprintf("has more than %d octets", maxFile), Mend: "restore it from a backup"}
	}
	return text, nil
}

func checkAccess(path string) error {
	if runtime.GOOS == "windows" {
		return nil // the directory's DACL keeps others out
	}
	own, err := durable.OwnershipOf(path)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	if me := os.Geteuid(); own.UID != durable.Keep && own.UID != me {
		return &Error{File: path, Problem: fmt.Sprintf("belongs to user id %d, and this program runs as user id %d", own.UID, me),
			Mend: fmt.Sprintf("run \"chown %d %s\"", me, path)}
	}
	if own.Mode&0o077 != 0 {
		return &Error{File: path, Problem: fmt.Sprintf("is open to other users (mode %04o)", own.Mode),
			Mend: fmt.Sprintf("run \"chmod 0600 %s\", and renew its certificate if somebody may have read the key", path)}
	}
	return nil
}

// Remove deletes the key of that id for good; it need not be there.
func (d *Dir) Remove(id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("key id %.40q is malformed: %w", id, ErrNotFound)
	}
	path := d.file(id)
	err := d.hook.Around(stepRemove, path, func() error { return durable.Remove(path) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("key: %w", err)
	}
	return nil
}

// Sweep deletes the keys that are not in referenced and were written at least
// olderThan before now, and returns their ids: a crash between the making of a
// key and the record of it leaves such. Files of other names are left alone. The
// age protects a key that is being recorded just now.
func (d *Dir) Sweep(referenced map[string]bool, olderThan time.Duration, now time.Time) (removed []string, err error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("key directory: %w", err)
	}
	var failed []error
	for _, entry := range entries {
		id, isKey := strings.CutSuffix(entry.Name(), suffix)
		if !isKey || !idPattern.MatchString(id) || !entry.Type().IsRegular() || referenced[id] {
			continue
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if now.Sub(info.ModTime()) < olderThan {
			continue
		}
		if err := d.Remove(id); err != nil {
			failed = append(failed, err)
			continue
		}
		removed = append(removed, id)
	}
	return removed, errors.Join(failed...)
}
