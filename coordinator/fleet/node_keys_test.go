package fleet

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The keys by which nodes are known are found in entries that are not applied yet,
// among whatever else is in them.
func TestNodeKeys(t *testing.T) {
	entry := func(payloads ...Payload) []byte {
		var commands []Command
		for _, payload := range payloads {
			command, err := NewCommand(time.Unix(1, 0), payload)
			require.NoError(t, err)
			commands = append(commands, command)
		}
		data, err := EncodeEntry(commands)
		require.NoError(t, err)
		return data
	}
	other := RevokeAPIToken{ID: "x"}
	for _, c := range []struct {
		payloads []Payload
		keys     map[string]string
	}{
		{[]Payload{other}, nil},
		{[]Payload{other, UseJoinToken{ID: "t", Node: ClusterNode{ID: "b", KeyFingerprint: "1"}}, other}, map[string]string{"b": "1"}},
		{[]Payload{AnnounceNode{Node: ClusterNode{ID: "b", KeyFingerprint: "2"}}}, map[string]string{"b": "2"}},
		{[]Payload{AnnounceNode{Node: ClusterNode{ID: "b", KeyFingerprint: "2"}}, ForgetNode{ID: "b"}}, map[string]string{"b": ""}},
	} {
		assert.Equal(t, c.keys, NodeKeys(entry(c.payloads...)))
	}
	assert.Nil(t, NodeKeys([]byte{2, 0x18, byte(TypeAnnounceNode)}), "damage is found by who applies it")
}
