package settings_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/certctl/certctl/internal/winetest"
	"github.com/certctl/certctl/shared/settings"
)

// guarded loads a file as the daemons do.
func guarded(path string) error {
	_, err := settings.Load(&daemon{}, settings.Options{File: path, Guarded: true})
	return err
}

// place is a configuration file in a directory of its own.
func place(t *testing.T) string {
	t.Helper()
	path := filepath.Join(winetest.TempDir(t), "t.yaml")
	require.NoError(t, os.WriteFile(path, []byte("server: {url: u, token: secret}\n"), 0o600))
	return path
}

// allow sets the access rules of a file or directory: those of SYSTEM, the administrators and this user, and more.
func allow(t *testing.T, path, more string) {
	t.Helper()
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	require.NoError(t, err)
	sd, err := windows.SecurityDescriptorFromString(fmt.Sprintf("D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;%s)%s", user.User.Sid, more))
	require.NoError(t, err)
	dacl, _, err := sd.DACL()
	require.NoError(t, err)
	require.NoError(t, windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil))
}

// WD is everybody: of all accounts that are not trusted the one that wine, which keeps Unix modes, keeps too.
const (
	everybodyReads  = "(A;;FR;;;WD)"
	everybodyWrites = "(A;;FRFW;;;WD)"
)

func TestFileThatOthersMayWrite(t *testing.T) {
	path := place(t)
	allow(t, filepath.Dir(path), "")
	allow(t, path, "")
	require.NoError(t, guarded(path))
	allow(t, path, everybodyReads)
	require.NoError(t, guarded(path))

	allow(t, path, everybodyWrites)
	require.EqualError(t, guarded(path), fmt.Sprintf("%[1]s: the configuration file is not used: %[1]s may be written by S-1-1-0, "+
		"who could have this program do anything; run \"icacls %[1]s /inheritance:r /remove:g *S-1-1-0 /grant:r *S-1-5-18:F *S-1-5-32-544:F\" as an "+
		"administrator, and look at what was written", path))
	_, err := settings.Load(&daemon{}, settings.Options{File: path})
	require.NoError(t, err, "a file that nobody acts upon may be anybody's")
}

func TestFileInADirectoryThatOthersMayWrite(t *testing.T) {
	path := place(t)
	dir := filepath.Dir(path)
	allow(t, path, "")
	allow(t, dir, everybodyReads)
	require.NoError(t, guarded(path))
	allow(t, dir, everybodyWrites)
	err := guarded(path)
	require.ErrorContains(t, err, dir+" may be written by S-1-1-0")
	assert.ErrorContains(t, err, fmt.Sprintf("run \"icacls %s /inheritance:r /remove:g *S-1-1-0 /grant:r *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F\"", dir))
}
