package file

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/certctl/certctl/agent/deploy"
)

// accessList is what "setfacl -m u:1234:r" gives a file of mode 0600, in the
// kernel's form: a version, then tag, permissions and id of each entry.
func accessList() []byte {
	list := binary.LittleEndian.AppendUint32(nil, 2)
	for _, entry := range [][3]uint32{{0x01, 6, 0xffffffff}, {0x02, 4, 1234}, {0x04, 0, 0xffffffff}, {0x10, 4, 0xffffffff}, {0x20, 0, 0xffffffff}} {
		list = binary.LittleEndian.AppendUint16(list, uint16(entry[0]))
		list = binary.LittleEndian.AppendUint16(list, uint16(entry[1]))
		list = binary.LittleEndian.AppendUint32(list, entry[2])
	}
	return list
}

func TestAccessListIsKept(t *testing.T) {
	h, old := newHost(t), newPair(t)
	h.mustDeploy(t, h.config(LayoutFiles), old, 1)
	err := unix.Setxattr(h.paths.Key, listName, accessList(), 0)
	if errors.Is(err, unix.ENOTSUP) {
		t.Skipf("the file system of %s has no access lists", h.dir)
	}
	require.NoError(t, err)
	kept := func() []byte {
		value := make([]byte, 1024)
		n, err := unix.Getxattr(h.paths.Key, listName, value)
		if errors.Is(err, unix.ENODATA) {
			return nil
		}
		require.NoError(t, err)
		return value[:n]
	}
	before, err := os.Stat(h.paths.Key)
	require.NoError(t, err)

	config := h.config(LayoutFiles)
	config.Check = shell("exit 1")
	_, err = newTarget(t, config).Deploy(context.Background(), h.task(newPair(t), 2))
	require.True(t, requireFailure(t, err, deploy.StageCheck).RolledBack)
	require.Equal(t, accessList(), kept(), "after a rollback")

	h.mustDeploy(t, h.config(LayoutFiles), newPair(t), 2)
	require.Equal(t, accessList(), kept(), "after a deployment")
	after, err := os.Stat(h.paths.Key)
	require.NoError(t, err)
	assert.Equal(t, before.Mode(), after.Mode())

	config = h.config(LayoutFiles)
	config.KeyMode = 0o600
	h.mustDeploy(t, config, old, 3)
	assert.Nil(t, kept(), "a configured mode replaces the list")
}
