// Package sources reads the files that a guard is asked to look at.
package sources

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Each calls look with each file of names that concerns the caller, in their order.
// The names are those of files under root, with slashes, each ended by NUL. The
// first error ends it.
func Each(root string, names io.Reader, concerns func(file string) bool, look func(file string, source []byte) error) error {
	list, err := io.ReadAll(names)
	if err != nil {
		return fmt.Errorf("read the file names: %w", err)
	}
	for name := range bytes.SplitSeq(list, []byte{0}) {
		file := string(name)
		if file == "" || !concerns(file) {
			continue
		}
		source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		if err != nil {
			return err
		}
		if err := look(file, source); err != nil {
			return err
		}
	}
	return nil
}
