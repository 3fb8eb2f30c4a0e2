package file

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"

	"github.com/certctl/certctl/agent/deploy"
	"github.com/certctl/certctl/internal/winetest"
	"github.com/certctl/certctl/shared/durable"
)

// wine keeps of an access list what fits into the mode of a Unix file: what the
// owner (this user) and Everyone may do. Entries of others, another owner, and
// that a list is protected are gone as soon as they were told; a new file has
// nothing from its directory but is for Everyone to read; and a list that is
// set gets the entries of the directory on top, protected or not. So the tests
// are in a directory that is closed to Everyone, and see on wine whether
// Everyone may read a file; on Windows they see the whole list.
func newWindowsHost(t *testing.T) *host {
	t.Helper()
	root := winetest.TempDir(t)
	h := &host{dir: filepath.Join(root, "tls"), scratch: filepath.Join(root, "scratch")}
	require.NoError(t, durable.EnsurePrivateDir(h.dir))
	require.NoError(t, durable.EnsurePrivateDir(h.scratch))
	h.paths = Paths{Certificate: filepath.Join(h.dir, "cert.pem"), Key: filepath.Join(h.dir, "key.pem")}
	return h
}

func me(t *testing.T) string {
	t.Helper()
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	require.NoError(t, err)
	return user.User.Sid.String()
}

func setList(t *testing.T, path, sddl string) {
	t.Helper()
	sd := parsed(t, sddl)
	dacl, _, err := sd.DACL()
	require.NoError(t, err)
	require.NoError(t, windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil))
}

func parsed(t *testing.T, sddl string) *windows.SECURITY_DESCRIPTOR {
	t.Helper()
	sd, err := windows.SecurityDescriptorFromString(sddl)
	require.NoError(t, err, sddl)
	return sd
}

func descriptor(t *testing.T, path string) *windows.SECURITY_DESCRIPTOR {
	t.Helper()
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	require.NoError(t, err)
	return sd
}

// open says whether everybody may read a file.
func open(t *testing.T, path string) bool {
	t.Helper()
	who, err := everybodyIn(descriptor(t, path))
	require.NoError(t, err)
	return who != ""
}

func TestAccessListsOfNewFiles(t *testing.T) {
	h := newWindowsHost(t)
	h.mustDeploy(t, h.config(LayoutFiles), newPair(t), 1)
	assert.False(t, open(t, h.paths.Key), "%s", descriptor(t, h.paths.Key))
	beside := filepath.Join(h.dir, "beside")
	require.NoError(t, os.WriteFile(beside, nil, 0o600))
	assert.Equal(t, descriptor(t, beside).String(), descriptor(t, h.paths.Certificate).String(), "what the directory passes on")
	if winetest.Wine() {
		assert.True(t, open(t, beside), "else nothing is seen here")
		return
	}
	want, err := access{}.keyDescriptor()
	require.NoError(t, err)
	assert.Equal(t, want.String(), onlyList(descriptor(t, h.paths.Key)))
}

// onlyList is a descriptor without its owner and how its list came to be.
func onlyList(sd *windows.SECURITY_DESCRIPTOR) string {
	_, list, _ := strings.Cut(sd.String(), "D:")
	return "D:" + strings.Replace(list, "AI", "", 1)
}

func TestListOfANewKey(t *testing.T) {
	sd, err := access{}.keyDescriptor()
	require.NoError(t, err)
	assert.Equal(t, parsed(t, "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;"+me(t)+")").String(), sd.String())
	sd, err = access{windowsAccount: `NT AUTHORITY\LOCAL SERVICE`}.keyDescriptor()
	require.NoError(t, err)
	assert.Equal(t, parsed(t, "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;"+me(t)+")(A;;FR;;;LS)").String(), sd.String())
	_, err = access{windowsAccount: "nobody-of-this-name"}.keyDescriptor()
	assert.ErrorContains(t, err, `windows_account "nobody-of-this-name"`)
}

// webServer is an account that an operator gave access by hand.
const webServer = "S-1-5-82-1-2-3-4-5"

func TestReplacedFilesKeepTheirAccessLists(t *testing.T) {
	h := newWindowsHost(t)
	h.mustDeploy(t, h.config(LayoutFiles), newPair(t), 1)
	closed := "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;" + me(t) + ")(A;;FR;;;" + webServer + ")"
	setList(t, h.paths.Key, closed)
	setList(t, h.paths.Certificate, closed)
	before := map[string]string{}
	for _, path := range []string{h.paths.Key, h.paths.Certificate} {
		require.False(t, open(t, path))
		before[path] = descriptor(t, path).String()
	}
	second := newPair(t)
	h.mustDeploy(t, h.config(LayoutFiles), second, 2)
	require.Equal(t, "new", h.found(t, map[string]pair{"new": second}))
	for path, list := range before {
		assert.False(t, open(t, path))
		assert.Equal(t, list, descriptor(t, path).String()) // on wine without webServer, before and after
		if !winetest.Wine() {
			assert.Contains(t, list, webServer)
		}
	}
}

// What a failed deployment puts back is as it was.
func TestFilesPutBackKeepTheirAccessLists(t *testing.T) {
	h := newWindowsHost(t)
	first := newPair(t)
	h.mustDeploy(t, h.config(LayoutFiles), first, 1)
	setList(t, h.paths.Certificate, "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;"+me(t)+")(A;;FR;;;"+webServer+")")
	before := descriptor(t, h.paths.Certificate).String()
	config := h.config(LayoutFiles)
	config.Probe = &Probe{Address: "127.0.0.1:1"} // nobody answers
	_, err := newTarget(t, config).Deploy(context.Background(), h.task(newPair(t), 2))
	requireFailure(t, err, deploy.StageVerify)
	require.Equal(t, "old", h.found(t, map[string]pair{"old": first}))
	assert.False(t, open(t, h.paths.Certificate))
	assert.Equal(t, before, descriptor(t, h.paths.Certificate).String())
}

func TestKeyThatEverybodyMayReadIsRefused(t *testing.T) {
	h := newWindowsHost(t)
	first := newPair(t)
	h.mustDeploy(t, h.config(LayoutFiles), first, 1)
	setList(t, h.paths.Key, "D:P(A;;FA;;;"+me(t)+")(A;;FR;;;WD)")
	_, err := newTarget(t, h.config(LayoutFiles)).Deploy(context.Background(), h.task(newPair(t), 2))
	require.ErrorContains(t, err, "everybody can read the private key that is there now (access list entry of S-1-1-0)")
	require.ErrorContains(t, err, "/inheritance:r /remove:g *S-1-1-0 /grant:r *S-1-5-18:F *S-1-5-32-544:F")
	require.Equal(t, "old", h.found(t, map[string]pair{"old": first}))

	// The configuration says who may.
	config := h.config(LayoutFiles)
	config.WindowsAccount = `NT AUTHORITY\LOCAL SERVICE`
	h.mustDeploy(t, config, newPair(t), 3)
	assert.False(t, open(t, h.paths.Key))
}

func TestWhatIsCarriedOver(t *testing.T) {
	own := "(A;;FA;;;SY)(A;;FR;;;" + webServer + ")"
	for name, c := range map[string]struct {
		kind    kind
		account string
		before  string
		want    string // "" is made anew, - is refused
	}{
		"key":                             {kindKey, "", "O:BAD:P" + own, "O:BAD:P" + own},
		"combined file":                   {kindCombined, "", "O:SYD:P" + own, "O:SYD:P" + own},
		"certificate":                     {kindCertificate, "", "O:BAD:AI" + own + "(A;ID;FR;;;BU)", "O:BAD:AI" + own + "(A;ID;FR;;;BU)"},
		"certificate, account configured": {kindCertificate, "x", "O:BAD:P" + own, "O:BAD:P" + own},
		"certificate of a user":           {kindCertificate, "", "O:" + webServer + "D:P" + own, "O:" + webServer + "D:P" + own},
		"key, account configured":         {kindKey, "x", "O:BAD:P" + own, ""},
		"key that a user put there":       {kindKey, "", "O:" + webServer + "D:P" + own, ""},
		"key that users read":             {kindKey, "", "O:BAD:AI" + own + "(A;ID;FR;;;BU)", "-"},
		"key whose list everybody sets":   {kindKey, "", "O:BAD:P(A;;WD;;;AU)", "-"},
		"key without a list":              {kindKey, "", "O:BA", "-"},
		"key whose size everybody sees":   {kindKey, "", "O:BAD:P(A;;0x80;;;WD)", "O:BAD:P(A;;0x80;;;WD)"},
	} {
		t.Run(name, func(t *testing.T) {
			before := observed{exists: true, attributes: attributes{Extended: map[string][]byte{descriptorName: []byte(c.before)}}}
			got, err := access{windowsAccount: c.account}.want(c.kind, before)
			if c.want == "-" {
				require.ErrorContains(t, err, "everybody can read the private key")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, string(got.Extended[descriptorName]))
		})
	}
}

// What a directory passed on to a key stays with it as its own.
func TestInheritedEntriesOfAKey(t *testing.T) {
	sd := parsed(t, fmt.Sprintf("O:BAD:AI(A;ID;FA;;;SY)(A;ID;FR;;;%s)", webServer))
	require.NoError(t, makeOwn(sd))
	assert.Equal(t, parsed(t, fmt.Sprintf("O:BAD:AI(A;;FA;;;SY)(A;;FR;;;%s)", webServer)).String(), sd.String())
}
