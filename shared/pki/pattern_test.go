package pki_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/certctl/certctl/shared/pki"
)

func TestNamePatternsAllow(t *testing.T) {
	for _, c := range []struct {
		pattern string
		allowed []string
		refused []string
	}{
		{"web1.example.com", []string{"web1.example.com", "WEB1.example.com."}, []string{"web2.example.com", "a.web1.example.com", "example.com", "*.example.com"}},
		{"*.example.com", []string{"a.example.com"}, []string{"a.b.example.com", "example.com", "*.example.com", "aexample.com", "*.a.example.com"}},
		{"**.Example.com.", []string{"a.example.com", "a.b.example.com", "*.example.com", "*.a.example.com"}, []string{"example.com", "aexample.com", "example.com.evil.example"}},
		{"=*.example.com", []string{"*.example.com"}, []string{"a.example.com", "example.com", "*.a.example.com"}},
		{"*.lan", []string{"nas.lan"}, []string{"lan", "a.nas.lan"}},
		{"localhost", []string{"localhost"}, []string{"a.localhost"}},
		{"192.0.2.7", []string{"192.0.2.7", "::ffff:192.0.2.7"}, []string{"192.0.2.8"}},
		{"10.0.0.0/8", []string{"10.1.2.3"}, []string{"11.0.0.1", "a.example.com"}},
		{"2001:db8::/32", []string{"2001:db8::1"}, []string{"2001:db9::1", "10.0.0.1"}},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			patterns, err := pki.ParseNamePatterns([]string{c.pattern})
			require.NoError(t, err)
			for _, name := range c.allowed {
				assert.NoError(t, patterns.Allow(pki.MustParseNames(name)), name)
			}
			for _, name := range c.refused {
				var refused *pki.NameNotAllowedError
				require.ErrorAs(t, patterns.Allow(pki.MustParseNames(name)), &refused, name)
				assert.Equal(t, pki.MustParseNames(name).Strings()[0], refused.Name)
			}
		})
	}
}

func TestNamePatternsNameTheFirstRefused(t *testing.T) {
	patterns, err := pki.ParseNamePatterns([]string{"*.example.com", "10.0.0.0/8", "*.EXAMPLE.com"})
	require.NoError(t, err)
	assert.Equal(t, []string{"*.example.com", "10.0.0.0/8"}, patterns.Strings())

	err = patterns.Allow(pki.MustParseNames("a.example.com", "b.example.org", "c.example.org", "10.0.0.1"))
	require.EqualError(t, err, `name "b.example.org" is not allowed; this enrolment allows *.example.com, 10.0.0.0/8`)
	err = patterns.Allow(pki.MustParseNames("a.example.com", "192.0.2.1"))
	require.EqualError(t, err, `name "192.0.2.1" is not allowed; this enrolment allows *.example.com, 10.0.0.0/8`)
	require.NoError(t, patterns.Allow(pki.MustParseNames("a.example.com", "10.0.0.1")))

	var many []string
	for i := range pki.MaxNamePatterns {
		many = append(many, fmt.Sprintf("**.%s%d.example.com", strings.Repeat("x", 50), i))
	}
	patterns, err = pki.ParseNamePatterns(many)
	require.NoError(t, err)
	err = patterns.Allow(pki.MustParseNames("b.example.org"))
	require.ErrorContains(t, err, "and 90 more patterns")
	assert.Less(t, len(err.Error()), 1024)
	require.ErrorIs(t, patterns.Allow(pki.Names{}), pki.ErrNoNames)

	err = pki.NamePatterns(nil).Allow(pki.MustParseNames("a.example.com"))
	require.EqualError(t, err, `name "a.example.com" is not allowed: this enrolment allows no names`)
	require.Error(t, pki.NamePatterns{{}}.Allow(pki.MustParseNames("a.example.com", "10.0.0.1")), "the zero pattern allows nothing")
}

func TestParseNamePatternRefuses(t *testing.T) {
	for _, c := range []struct{ pattern, wants string }{
		{"", "empty"},
		{"*", "would allow every name"},
		{"**", "would allow every name"},
		{"=*", "would allow every name"},
		{"*.", "empty"},
		{"***.example.com", "a wildcard must be the whole left-most label"},
		{"a.*.example.com", "a wildcard must be the whole left-most label"},
		{"**.*.example.com", "a wildcard must be the whole left-most label"},
		{"=web1.example.com", `"=" stands only before a wildcard name`},
		{"=*.com", "clients refuse a wildcard"},
		{"under_score.example.com", "not a valid host name"},
		{"10.0.0.1/8", `write "10.0.0.0/8"`},
		{"10.0.0.0/33", "want an address prefix"},
		{"::ffff:10.0.0.0/104", "write the IPv4 prefix itself"},
		{"0.0.0.0", "unspecified"},
		{"1.2.3", "looks like an IP address"},
		{"*." + strings.Repeat("abcdefghi.", 25) + "ab", "too long for any name to match"},
	} {
		_, err := pki.ParseNamePattern(c.pattern)
		assert.ErrorContains(t, err, c.wants, c.pattern)
		_, err = pki.ParseNamePatterns([]string{"ok.example.com", c.pattern})
		assert.ErrorContains(t, err, c.wants, c.pattern)
	}
	_, err := pki.ParseNamePatterns(make([]string, pki.MaxNamePatterns+1))
	assert.ErrorContains(t, err, "101 name patterns; at most 100")
}

func TestNamePatternJSON(t *testing.T) {
	text := `["**.example.com","=*.example.net","10.0.0.0/8","192.0.2.1","2001:db8::/32"]`
	var patterns pki.NamePatterns
	require.NoError(t, json.Unmarshal([]byte(text), &patterns))
	out, err := json.Marshal(patterns)
	require.NoError(t, err)
	assert.Equal(t, text, string(out))
	require.Error(t, json.Unmarshal([]byte(`["a_b"]`), &patterns))
	_, err = json.Marshal(pki.NamePatterns{{}})
	require.Error(t, err)
	assert.Empty(t, pki.NamePattern{}.String())
}

// The patterns are defined here a second time, label by label, and both definitions must agree.
func TestNamePatternsAgreeWithLabels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		label := rapid.SampledFrom([]string{"a", "b", "ab"})
		base := strings.Join(rapid.SliceOfN(label, 1, 3).Draw(t, "base"), ".")
		labels := rapid.SliceOfN(label, 2, 5).Draw(t, "labels")
		if len(labels) > 2 && rapid.Bool().Draw(t, "wildcard") {
			labels[0] = "*"
		}
		name := strings.Join(labels, ".")
		depth := len(labels) - strings.Count(base, ".") - 1
		beneath := depth > 0 && strings.Join(labels[max(depth, 0):], ".") == base
		for form, want := range map[string]bool{
			base:         name == base,
			"*." + base:  beneath && depth == 1 && labels[0] != "*",
			"**." + base: beneath,
		} {
			p, err := pki.ParseNamePattern(form)
			require.NoError(t, err)
			got := pki.NamePatterns{p}.Allow(pki.MustParseNames(name)) == nil
			require.Equal(t, want, got, "pattern %s, name %s", form, name)
		}
	})
}

func FuzzParseNamePattern(f *testing.F) {
	for _, s := range []string{"a.example.com", "*.a", "**.a.b", "=*.a.b", "10.0.0.0/8", "::/0", "=", "*.1.2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := pki.ParseNamePattern(s)
		if err != nil {
			return
		}
		again, err := pki.ParseNamePattern(p.String())
		require.NoError(t, err, "a normal form must parse")
		require.Equal(t, p, again, "a normal form must be stable")
	})
}
