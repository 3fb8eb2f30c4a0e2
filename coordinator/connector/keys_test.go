package connector_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/coordinator/connector"
)

func TestKeysAreRememberedWithinABound(t *testing.T) {
	var keys connector.Keys
	_, known := keys.Of("1")
	assert.False(t, known)
	for i := range 20_001 {
		keys.Set(strconv.Itoa(i), "key")
	}
	_, known = keys.Of("1")
	assert.False(t, known)
	key, known := keys.Of("20000")
	assert.True(t, known)
	assert.Equal(t, "key", key)
}
