package assignment

import (
	"fmt"
	"path/filepath"

	"github.com/certctl/certctl/shared/managed"
)

// files knows which certificate each file belongs to.
type files struct {
	owner map[string]string // by clean path
	trees map[string]string // directories that belong to a deployment as a whole
}

func newFiles() *files { return &files{owner: map[string]string{}, trees: map[string]string{}} }

const directoryKey = "directory"

// give notes that the files of a certificate are its own.
func (f *files) give(c *managed.Certificate, owner string) {
	for i := range c.Deployments {
		for _, p := range c.Deployments[i].Files.Paths() {
			path := filepath.Clean(p.Path)
			f.owner[path] = owner
			if p.Key == directoryKey {
				f.trees[path] = owner
			}
		}
	}
}

// claim reports a file of a certificate that belongs to another one, or twice to
// this one.
func (f *files) claim(c *managed.Certificate) error {
	mine := map[string]bool{}
	for i := range c.Deployments {
		for _, p := range c.Deployments[i].Files.Paths() {
			path := filepath.Clean(p.Path)
			owner := f.ownerOf(path, p.Key == directoryKey)
			if mine[path] {
				owner = "another deployment of this certificate"
			}
			if owner != "" {
				return fmt.Errorf("deployments[%d].files.%s: %s is written by %s already; every file belongs to one deployment", i, p.Key, path, owner)
			}
			mine[path] = true
		}
	}
	return nil
}

func (f *files) ownerOf(path string, tree bool) string {
	if owner := f.owner[path]; owner != "" {
		return owner
	}
	for dir := filepath.Dir(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if owner := f.trees[dir]; owner != "" {
			return owner
		}
	}
	if tree {
		for known, owner := range f.owner {
			if below(known, path) {
				return owner
			}
		}
	}
	return ""
}
