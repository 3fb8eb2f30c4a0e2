package api

import (
	"net"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
)

// Who makes a token for other hosts hears that none of them can use it.
func TestWarningOfAnAddressThatNoOtherHostReaches(t *testing.T) {
	for _, alone := range []string{"127.0.0.1:8443", "[::1]:8443"} {
		address, err := net.ResolveTCPAddr("tcp", alone)
		require.NoError(t, err)
		said := unreachable(address)
		assert.Contains(t, said, alone)
		assert.Contains(t, said, "server.listen (CERTCTL_SERVER_LISTEN), such as to :8443")
	}
	for _, open := range []string{"0.0.0.0:8443", "[::]:8443", "192.0.2.1:8443"} {
		address, err := net.ResolveTCPAddr("tcp", open)
		require.NoError(t, err)
		assert.Empty(t, unreachable(address), open)
	}
	assert.Empty(t, unreachable(nil))
}

// The bounds that a command line can name are those of the API.
func TestBoundsOfTokens(t *testing.T) {
	for request, longest := range map[reflect.Type]time.Duration{
		reflect.TypeFor[resource.CreateAPIToken]():        resource.MaxAPITokenTTL,
		reflect.TypeFor[resource.CreateEnrollmentToken](): resource.MaxEnrollmentTTL,
	} {
		field, ok := request.FieldByName("TTLSeconds")
		require.True(t, ok)
		assert.Equal(t, strconv.Itoa(int(longest/time.Second)), field.Tag.Get("maximum"), request)
	}
	uses, ok := reflect.TypeFor[resource.CreateEnrollmentToken]().FieldByName("MaxUses")
	require.True(t, ok)
	assert.Equal(t, strconv.Itoa(resource.MaxTokenUses), uses.Tag.Get("maximum"))
}
