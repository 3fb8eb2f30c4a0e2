package managed

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestBrokered(t *testing.T) {
	for issuer, want := range map[string]struct {
		name string
		ok   bool
	}{
		"coordinator":                            {"", true},
		"coordinator/digicert":                   {"digicert", true},
		"coordinator/a":                          {"a", true},
		"coordinator/ev-2":                       {"ev-2", true},
		"coordinator/":                           {},
		"coordinator/Digicert":                   {},
		"coordinator/a/b":                        {},
		"coordinator/-a":                         {},
		"coordinators":                           {},
		"letsencrypt":                            {},
		"":                                       {},
		"coordinator/" + strings.Repeat("a", 63): {strings.Repeat("a", 63), true},
		"coordinator/" + strings.Repeat("a", 64): {},
	} {
		name, ok := Brokered(issuer)
		assert.Equal(t, want.ok, ok, issuer)
		if want.ok {
			assert.Equal(t, want.name, name, issuer)
		}
	}
	assert.True(t, (&Certificate{Issuer: "le", Fallback: []string{"coordinator/digicert"}}).Brokered())
	assert.False(t, (&Certificate{Issuer: "le"}).Brokered())
}
