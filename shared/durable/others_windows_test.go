package durable

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/windows"
)

// BU are the users of the host, WD is everybody, CO whoever makes a file, AN is nobody in particular.
func TestWhatOthersAreGranted(t *testing.T) {
	me, err := currentUser()
	require.NoError(t, err)
	const rights = windows.FILE_WRITE_DATA | windows.WRITE_DAC
	for sddl, want := range map[string]string{
		"O:BAD:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;" + me.String() + ")": "",
		"O:BAD:(A;;FR;;;BU)":                              "",
		"O:BAD:(A;;FW;;;BU)":                              "S-1-5-32-545",
		"O:BAD:(A;;0x40000;;;WD)":                         "S-1-1-0",
		"O:BAD:(A;OICIIO;FA;;;WD)":                        "",
		"O:BAD:(A;;FA;;;CO)":                              "",
		"O:BAD:(A;;FA;;;" + trustedInstaller + ")":        "",
		"O:BAD:(D;;FA;;;WD)":                              "",
		"O:BAD:(D;;FA;;;BU)(A;;FA;;;BU)":                  "S-1-5-32-545",
		"O:BAD:(A;;FA;;;S-1-5-21-1-2-3-1001)(A;;FR;;;BU)": "S-1-5-21-1-2-3-1001",
		"O:BA":   "everybody, since it has no access rules",
		"O:BAD:": "",
	} {
		sd, err := windows.SecurityDescriptorFromString(sddl)
		require.NoError(t, err, sddl)
		other, err := GrantedToOthers(sd, rights)
		require.NoError(t, err, sddl)
		assert.Equal(t, want, other, sddl)
	}
}

func TestWhoOwns(t *testing.T) {
	me, err := currentUser()
	require.NoError(t, err)
	for owner, want := range map[string]string{
		"SY": "", "BA": "", me.String(): "", trustedInstaller: "",
		"BU": "S-1-5-32-545", "S-1-5-21-1-2-3-1001": "S-1-5-21-1-2-3-1001",
	} {
		sd, err := windows.SecurityDescriptorFromString("O:" + owner + "D:(A;;FA;;;SY)")
		require.NoError(t, err, owner)
		other, err := OwnedByOther(sd)
		require.NoError(t, err, owner)
		assert.Equal(t, want, other, owner)
	}
	sd, err := windows.SecurityDescriptorFromString("D:(A;;FA;;;SY)")
	require.NoError(t, err)
	_, err = OwnedByOther(sd)
	assert.Error(t, err)
}
