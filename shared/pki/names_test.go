package pki_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/shared/pki"
)

func TestParseNamesNormalises(t *testing.T) {
	names, err := pki.ParseNames([]string{
		"WWW.Example.COM.", "www.example.com", "*.Example.com", "bücher.example", "faß.example", "xn--bcher-kva.example",
		"localhost", "r3---sn-x.example.net", "2001:DB8::1", "::ffff:192.0.2.7", "192.0.2.7", "10.0.0.1", "example。org",
	})
	require.NoError(t, err)
	assert.Equal(t, []string{
		"*.example.com", "example.org", "localhost", "r3---sn-x.example.net", "www.example.com", "xn--bcher-kva.example",
		"xn--fa-hia.example",
	}, names.DNS)
	assert.Equal(t, []netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::1"),
	}, names.IPs)
	assert.Equal(t, "*.example.com, example.org, localhost, r3---sn-x.example.net, www.example.com, "+
		"xn--bcher-kva.example, xn--fa-hia.example, 10.0.0.1, 192.0.2.7, 2001:db8::1", names.String())
	assert.Equal(t, 10, names.Len())
}

func TestParseNamesRefuses(t *testing.T) {
	long := strings.Repeat("a", 60) + "."
	for _, c := range []struct{ name, wants string }{
		{"", `name "": empty; remove it or write a DNS name or IP address`},
		{".", "empty label"},
		{"a..example.com", "empty label"},
		{".example.com", "empty label"},
		{"example.com..", "empty label"},
		{"*", "a wildcard must be the whole left-most label"},
		{"*.", "empty"},
		{"*.com", "clients refuse a wildcard"},
		{"*.*.example.com", "a wildcard must be the whole left-most label"},
		{"www.*.example.com", "a wildcard must be the whole left-most label"},
		{"w*.example.com", "a wildcard must be the whole left-most label"},
		{"under_score.example.com", "not a valid host name"},
		{"sp ace.example.com", "not a valid host name"},
		{" www.example.com", "not a valid host name"},
		{"www.example.com\n", "not a valid host name"},
		{"https://example.com", "not a valid host name"},
		{"user@example.com", "not a valid host name"},
		{"-a.example.com", "starts or ends with a hyphen"},
		{"a-.example.com", "starts or ends with a hyphen"},
		{"xn--zzzzzz99999.example", "not a valid host name"},
		{strings.Repeat("a", 64) + ".example.com", "longer than 63 octets"},
		{strings.Repeat(long, 4) + "example.com", "longer than 253 octets"},
		{strings.Repeat("ü", 2000), "longer than 253 octets"},
		{"*." + strings.Repeat(long, 4) + "aaaaaaaa", "longer than 253 octets"},
		{"1.2.3", "looks like an IP address but is none"},
		{"1.2.3.4.5", "looks like an IP address but is none"},
		{"256.1.1.1", "looks like an IP address but is none"},
		{"１.２.３.４", "looks like an IP address but is none"},
		{"0x7f000001", "looks like an IP address but is none"},
		{"host.0x1f", "looks like an IP address but is none"},
		{"10.0.0.0/8", "not a valid host name"},
		{"\xd20.example.com", "is not UTF-8 text"},
		{"fe80::1%eth0", `leave out "%eth0"`},
		{"0.0.0.0", "unspecified or multicast"},
		{"::", "unspecified or multicast"},
		{"::ffff:0.0.0.0", "unspecified or multicast"},
		{"224.0.0.1", "unspecified or multicast"},
		{"[::1]", "not a valid host name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := pki.ParseNames([]string{"ok.example.com", c.name})
			require.ErrorContains(t, err, c.wants)
			assert.Less(t, len(err.Error()), 400, "an error must not repeat long input")
		})
	}
}

func TestParseNamesBoundsTheList(t *testing.T) {
	_, err := pki.ParseNames(nil)
	require.ErrorIs(t, err, pki.ErrNoNames)

	var list []string
	for i := range pki.MaxNames {
		list = append(list, fmt.Sprintf("h%d.example.com", i))
	}
	names, err := pki.ParseNames(list)
	require.NoError(t, err)
	assert.Equal(t, pki.MaxNames, names.Len())
	_, err = pki.ParseNames(append(list, "one.more.example.com"))
	require.EqualError(t, err, "101 names: one certificate carries at most 100; split them over several certificates")
}

func TestMustParseNamesPanics(t *testing.T) {
	assert.Panics(t, func() { pki.MustParseNames("not valid") })
}

func TestNamesSets(t *testing.T) {
	a := pki.MustParseNames("a.example.com", "*.example.com", "192.0.2.1")
	assert.True(t, a.Equal(pki.MustParseNames("192.0.2.1", "*.EXAMPLE.com", "a.example.com")))
	assert.False(t, a.Equal(pki.MustParseNames("a.example.com")))
	assert.True(t, a.Contains(pki.MustParseNames("192.0.2.1", "a.example.com")))
	assert.True(t, a.Contains(pki.Names{}))
	missing := a.Missing(pki.MustParseNames("a.example.com", "b.example.com", "192.0.2.2"))
	assert.Equal(t, pki.MustParseNames("b.example.com", "192.0.2.2"), missing, "a wildcard is a literal name here")
	assert.True(t, pki.Names{}.IsZero())
	assert.False(t, a.IsZero())
}

func TestNamesJSON(t *testing.T) {
	var v struct {
		Names pki.Names `json:"names,omitzero"`
	}
	require.NoError(t, json.Unmarshal([]byte(`{"names":["B.example.com","192.0.2.1","a.example.com"]}`), &v))
	out, err := json.Marshal(v)
	require.NoError(t, err)
	assert.JSONEq(t, `{"names":["a.example.com","b.example.com","192.0.2.1"]}`, string(out))

	require.NoError(t, json.Unmarshal([]byte(`{"names":[]}`), &v))
	assert.True(t, v.Names.IsZero())
	out, err = json.Marshal(pki.Names{})
	require.NoError(t, err)
	assert.Equal(t, "[]", string(out))

	before := pki.MustParseNames("kept.example.com")
	for _, bad := range []string{`null`, `"a.example.com"`, `{}`, `[1]`, `[null]`, `["a_b"]`, `[""]`} {
		n := before
		require.Error(t, json.Unmarshal([]byte(bad), &n), bad)
		assert.True(t, before.Equal(n), "%s: a refused value must leave the old one", bad)
	}
}

func dnsName(t *rapid.T) string {
	return rapid.StringMatching(`(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]{0,8}[A-Za-z0-9])?\.){1,4}[a-z]{2,6}\.?`).
		Filter(func(s string) bool {
			// A made-up "xn--" label is rarely valid punycode, and "*.tld" is refused by rule.
			return !strings.Contains(strings.ToLower(s), "xn--") &&
				(!strings.HasPrefix(s, "*.") || strings.Count(strings.Trim(s, "."), ".") >= 2)
		}).Draw(t, "dns")
}

func anyNames(t *rapid.T) pki.Names {
	var list []string
	for range rapid.IntRange(0, 5).Draw(t, "dns count") {
		list = append(list, dnsName(t))
	}
	for range rapid.IntRange(0, 3).Draw(t, "ip count") {
		octets := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "ip")
		octets[0] = octets[0]%200 + 1
		ip, _ := netip.AddrFromSlice(octets)
		list = append(list, ip.String())
	}
	if len(list) == 0 {
		return pki.Names{}
	}
	names, err := pki.ParseNames(list)
	require.NoError(t, err)
	return names
}

func TestNamesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := anyNames(t)
		data, err := json.Marshal(names)
		require.NoError(t, err)
		var back pki.Names
		require.NoError(t, json.Unmarshal(data, &back))
		require.True(t, names.Equal(back), "%s", data)

		shuffled := rapid.Permutation(names.Strings()).Draw(t, "shuffled")
		if len(shuffled) > 0 {
			again, err := pki.ParseNames(append(shuffled, shuffled[0]))
			require.NoError(t, err)
			require.True(t, names.Equal(again))
		}
	})
}

func FuzzParseNames(f *testing.F) {
	for _, s := range []string{"www.example.com", "*.a.b", "bücher.example", "::1", "xn--a", "１.２", "a.。b", "0x.0x", "ß.ẞ.de.", "\xd20"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, err := pki.ParseNames([]string{s})
		if err != nil {
			return
		}
		require.Equal(t, 1, names.Len())
		again, err := pki.ParseNames(names.Strings())
		require.NoError(t, err, "a normal form must parse")
		require.True(t, names.Equal(again), "a normal form must be stable")
		for _, name := range names.DNS {
			require.LessOrEqual(t, len(name), 253)
			require.NotRegexp(t, `[^a-z0-9.*-]`, name)
		}
	})
}
