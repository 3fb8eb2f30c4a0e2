package settings

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

func TestPlainSteps(t *testing.T) {
	plain := regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.OneOf(
			rapid.String(),
			rapid.StringMatching(`[A-Za-z0-9_-]*`),
			rapid.StringMatching(`[!-~]{0,3}\n?`),
			rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 3), func(b []byte) string { return string(b) }),
		).Draw(t, "key")
		assert.Equal(t, plain.MatchString(key), isPlainStep(key), "%q", key)
	})
	for c := range 256 {
		for _, key := range []string{string([]byte{byte(c)}), "a" + string([]byte{byte(c)}), string([]byte{byte(c), 'a'})} {
			assert.Equal(t, plain.MatchString(key), isPlainStep(key), "%q", key)
		}
	}
	assert.False(t, isPlainStep(""))
}
