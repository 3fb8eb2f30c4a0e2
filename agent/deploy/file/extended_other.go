//go:build unix && !linux

package file

import "os"

// Only Linux hosts are supported; other Unix systems build for development.
func readExtended(*os.File) (map[string][]byte, error)         { return nil, nil }
func writeExtended(*os.File, map[string][]byte) error          { return nil }
func withoutList(extended map[string][]byte) map[string][]byte { return extended }
