package config

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// What is remembered of directories changes nothing of what is found, whatever
// links there are: into nothing, into each other, out of a file.
func TestLookupFindsWhatResolveFinds(t *testing.T) {
	base := t.TempDir()
	if leads, err := filepath.EvalSymlinks(base); err == nil {
		base = leads
	}
	steps := []string{"a", "b", "c", "..", "."}
	rapid.Check(t, func(t *rapid.T) {
		root, err := os.MkdirTemp(base, "tree")
		require.NoError(t, err)
		defer os.RemoveAll(root)
		path := rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(rapid.SampledFrom(steps), 1, 4).Draw(t, "steps"), string(filepath.Separator))
		})
		for range rapid.IntRange(0, 8).Draw(t, "things") {
			at := filepath.Join(root, path.Draw(t, "at"))
			if !Below(at, root) {
				continue
			}
			// What stands in the way of another stays away.
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				_ = os.MkdirAll(at, 0o700)
			case 1:
				_ = os.WriteFile(at, nil, 0o600)
			case 2:
				if runtime.GOOS != "windows" {
					_ = os.Symlink(path.Draw(t, "to"), at)
				}
			default:
				if runtime.GOOS != "windows" {
					_ = os.Symlink(filepath.Join(root, path.Draw(t, "to")), at)
				}
			}
		}
		var seen lookup
		for _, p := range rapid.SliceOfN(path, 1, 12).Draw(t, "paths") {
			asked := root + string(filepath.Separator) + p
			if rapid.IntRange(0, 9).Draw(t, "relative") == 0 {
				asked = p
			}
			want, wantErr := Resolve(asked)
			got, err := seen.resolve(asked)
			assert.Equal(t, want, got, asked)
			assert.Equal(t, wantErr, err, asked)

			forms := []string{filepath.Clean(asked)}
			if filepath.IsAbs(asked) {
				if parent, err := Resolve(filepath.Dir(forms[0])); err == nil {
					forms = append(forms, foldCase(filepath.Join(parent, filepath.Base(forms[0]))))
				}
				if wantErr == nil {
					forms = append(forms, foldCase(want))
				}
				forms[0] = foldCase(forms[0])
			}
			slices.Sort(forms)
			assert.Equal(t, slices.Compact(forms), seen.places(asked), asked)
		}
	})
}

func TestLookupResolvesEachDirectoryOnce(t *testing.T) {
	var seen lookup
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		_, err := seen.resolve(filepath.Join(dir, "tls", name))
		require.NoError(t, err)
	}
	assert.Len(t, seen.dirs, 1)
}
