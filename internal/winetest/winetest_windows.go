package winetest

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/windows"
)

// Wine reports whether this is wine and not Windows.
func Wine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}

// TempDir is t.TempDir for wine, whose release 8 does not know the request by which os.RemoveAll deletes
// (FileDispositionInformationEx), but the one of os.Remove.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "certctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var all []string
		if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			all = append(all, path)
			return err
		}); err != nil {
			t.Error(err)
		}
		for _, path := range slices.Backward(all) {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}
	})
	return dir
}
