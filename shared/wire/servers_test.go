package wire

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseServer(t *testing.T) {
	for text, want := range map[string]string{
		"https://PKI.example.com:8443/": "https://pki.example.com:8443",
		" https://pki.example.com":      "https://pki.example.com",
		"https://[2001:db8::1]:8443":    "https://[2001:db8::1]:8443",
		"https://[2001:db8::1]":         "https://[2001:db8::1]",
	} {
		got, err := ParseServer(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got)
	}
	for text, want := range map[string]string{
		"":                       "empty",
		"pki.example.com":        "not a URL",
		"pki.example.com:8443":   "not a URL",
		"http://pki.example.com": "only https",
		"https://":               "no host",
		"https://a:b@host":       "no place",
		"https://host/path":      "something after the host",
		"https://host?x=1":       "something after the host",
		"https://host#x":         "something after the host",
		"https://ho st":          "not a URL",

		"https://" + strings.Repeat("x", MaxServerLen): "more than 512 octets",
	} {
		_, err := ParseServer(text)
		require.ErrorContains(t, err, want, text)
		assert.ErrorContains(t, err, "give it as https://host:port")
	}
}

func FuzzParseServer(f *testing.F) {
	for _, seed := range []string{"https://a:1", "https://[::1]:2", "http://x", "https://a%zz", "//"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseServer(text)
		if err != nil {
			return
		}
		again, err := ParseServer(got)
		if err != nil || again != got {
			t.Fatalf("%q became %q, which becomes %q, %v", text, got, again, err)
		}
	})
}

// Both sides come to the same list and the same digest, whatever stands in it.
func TestCleanServers(t *testing.T) {
	clean := CleanServers([]string{"https://C:1", "http://b", "https://a/", "https://a", "nonsense", ""})
	assert.Equal(t, []string{"https://a", "https://c:1"}, clean)
	assert.Equal(t, clean, CleanServers(clean))
	assert.Empty(t, CleanServers(nil))
	var many []string
	for i := range 3 * MaxServers {
		many = append(many, fmt.Sprintf("https://node%02d", i))
	}
	assert.Equal(t, many[:MaxServers], CleanServers(many))

	digests := map[string]bool{}
	for _, list := range [][]string{nil, {"https://a"}, {"https://a", "https://b"}, {"https://b"}} {
		digest := ServersDigest(list)
		assert.True(t, validServersDigest(digest))
		digests[digest] = true
	}
	assert.Len(t, digests, 4)
	assert.True(t, validServersDigest(""))
	assert.False(t, validServersDigest("abc"))
	assert.False(t, validServersDigest(strings.Repeat("g", 64)))
}
