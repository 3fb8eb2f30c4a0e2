package enroll

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

func TestWanted(t *testing.T) {
	assert.True(t, Wanted(nil).IsZero())
	assert.Equal(t, pki.MustParseNames("a.example.com", "b.example.com", "192.0.2.1"), Wanted([]pki.Names{
		pki.MustParseNames("b.example.com", "a.example.com"),
		pki.MustParseNames("a.example.com", "192.0.2.1"),
	}))
}

// A host may have more names than one request carries.
func TestWantedOfALargeHost(t *testing.T) {
	var certificates []pki.Names
	for i := range 10_000 {
		certificates = append(certificates, pki.MustParseNames(fmt.Sprintf("www%d.example.com", i), fmt.Sprintf("10.0.%d.%d", i/250, i%250)))
	}
	certificates = append(certificates, pki.MustParseNames("www.example.org"))
	wanted := Wanted(certificates)
	assert.Equal(t, pki.MaxNames, wanted.Len())
	assert.Contains(t, wanted.DNS, "www.example.org", "no domain goes unseen")
	normal, err := pki.ParseNames(wanted.Strings())
	require.NoError(t, err)
	assert.True(t, normal.Equal(wanted))

	body, err := json.Marshal(wire.EnrollRequest{Names: wanted})
	require.NoError(t, err)
	var read wire.EnrollRequest
	require.NoError(t, json.Unmarshal(body, &read))
	assert.Less(t, len(body), wire.MaxEnrollBody/2)
}
