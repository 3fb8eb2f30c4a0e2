package config

import (
	"fmt"
	"path/filepath"

	"github.com/certctl/certctl/shared/managed"
)

// Owners knows which certificate each file belongs to, by whatever path it is
// reached. It is for one run through a configuration.
type Owners struct {
	owner map[string]string // by place
	trees map[string]string // directories that belong to a deployment as a whole
	seen  lookup
}

// NewOwners returns Owners that know of no file.
func NewOwners() *Owners { return &Owners{owner: map[string]string{}, trees: map[string]string{}} }

const directoryKey = "directory"

// Give notes that the files of a certificate are its own.
func (o *Owners) Give(c *managed.Certificate, owner string) {
	for i := range c.Deployments {
		for _, p := range c.Deployments[i].Files.Paths() {
			for _, place := range o.seen.places(p.Path) {
				o.owner[place] = owner
				if p.Key == directoryKey {
					o.trees[place] = owner
				}
			}
		}
	}
}

// Claim reports the files of a certificate that belong to another one, or twice
// to this one, with their fields.
func (o *Owners) Claim(c *managed.Certificate, report func(field string, err error)) {
	mine := map[string]bool{}
	for i := range c.Deployments {
		for _, p := range c.Deployments[i].Files.Paths() {
			owner := ""
			at := o.seen.places(p.Path)
			for _, place := range at {
				switch taken := o.ownerOf(place, p.Key == directoryKey); {
				case mine[place]:
					owner = "another deployment of this certificate"
				case owner == "":
					owner = taken
				}
			}
			if owner != "" {
				report(fmt.Sprintf("deployments[%d].files.%s", i, p.Key), fmt.Errorf("%s is written by %s already; every file belongs to one deployment", filepath.Clean(p.Path), owner))
			}
			for _, place := range at {
				mine[place] = true
			}
		}
	}
}

func (o *Owners) ownerOf(place string, tree bool) string {
	if owner := o.owner[place]; owner != "" {
		return owner
	}
	for dir := filepath.Dir(place); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if owner := o.trees[dir]; owner != "" {
			return owner
		}
	}
	if tree {
		for known, owner := range o.owner {
			if Below(known, place) {
				return owner
			}
		}
	}
	return ""
}
