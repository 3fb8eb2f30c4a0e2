package settings_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/shared/settings"
)

func TestCheckListen(t *testing.T) {
	for _, good := range []string{":8443", "127.0.0.1:0", "[::1]:65535", "host.example.com:https"} {
		assert.NoError(t, settings.CheckListen(good), good)
	}
	for _, bad := range []string{"", "8443", "127.0.0.1", "host:", "::1:8443"} {
		assert.ErrorContains(t, settings.CheckListen(bad), "expected host:port", bad)
	}
	for _, bad := range []string{":99999", ":65536", ":-1", ":184467440737095516160"} {
		assert.ErrorContains(t, settings.CheckListen(bad), "from 0 to 65535", bad)
	}
}
