package managed

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/certctl/certctl/shared/pki"
)

// Validate implements settings.Validator.
func (c *Certificate) Validate(report func(string, error)) {
	if !slices.ContainsFunc(c.Names, open) {
		pki.CheckNames("names", c.Names, report)
	}
	c.templated(func(field string, text *string) {
		if err := checkPlaceholders(*text); err != nil {
			report(field, err)
		}
	})
	ids := make(map[string]bool, len(c.Deployments))
	for i := range c.Deployments {
		id := c.Deployments[i].IDAt(i)
		if ids[id] {
			report(fmt.Sprintf("deployments[%d].id", i), fmt.Errorf("%q names another deployment of this certificate already", id))
		}
		ids[id] = true
	}
}

// IDAt is the deployment's id, or its place in the list, counted from 1.
func (d *Deployment) IDAt(index int) string {
	if d.ID != "" {
		return d.ID
	}
	return strconv.Itoa(index + 1)
}

// Validate implements settings.Validator.
func (d *Deployment) Validate(report func(string, error)) {
	if v := d.Verify; v != nil && v.Address == "" && len(v.Command) == 0 {
		report("verify", errors.New("expected an address or a command"))
	}
	if v := d.Verify; v != nil && v.Address != "" && !open(v.Address) {
		CheckAddress("verify.address", v.Address, report)
	}
	all := d.Files.Paths()
	if len(all) == 0 {
		report("files", errors.New("no file to write; expected at least one of certificate, chain, fullchain, key, combined, directory"))
	}
	for _, f := range all {
		if !absolute(f.Path) {
			report("files."+f.Key, fmt.Errorf("cannot use %q; expected an absolute path", f.Path))
		}
	}
	if d.Files.Directory != "" && len(all) > 1 {
		report("files.directory", errors.New("cannot be combined with paths of single files"))
	}
	if d.Files.KeyMode&0o007 != 0 {
		report("files.key_mode", fmt.Errorf("%04o lets everybody on this host use the private key; expected a mode such as 0600 or 0640", uint32(d.Files.KeyMode)))
	}
}

// NamedPath is a path with the key that it stands under.
type NamedPath struct{ Key, Path string }

// Paths lists the paths that are set, in the order of the fields.
func (f *Files) Paths() []NamedPath {
	var set []NamedPath
	f.each(func(key string, path *string) {
		if *path != "" {
			set = append(set, NamedPath{key, *path})
		}
	})
	return set
}

func (f *Files) each(visit func(key string, path *string)) {
	visit("certificate", &f.Certificate)
	visit("chain", &f.Chain)
	visit("fullchain", &f.FullChain)
	visit("key", &f.Key)
	visit("combined", &f.Combined)
	visit("directory", &f.Directory)
}

// absolute reports whether a path is absolute on some operating system: it is
// not known here which one the host has.
func absolute(path string) bool {
	if strings.HasPrefix(path, "/") || strings.HasPrefix(path, `\\`) {
		return true
	}
	return len(path) > 2 && path[1] == ':' && (path[2] == '\\' || path[2] == '/') &&
		(path[0]|0x20 >= 'a' && path[0]|0x20 <= 'z')
}

// CheckAddress reports an address that is not host:port; path names the field.
func CheckAddress(path, address string, report func(string, error)) {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		var n uint64
		n, err = strconv.ParseUint(port, 10, 16)
		if err == nil && n == 0 {
			err = errors.New("port 0")
		}
	}
	if err != nil {
		report(path, fmt.Errorf("cannot use %q; expected host:port with a port number, such as 127.0.0.1:443 or :80", address))
	}
}
