package selector

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestWithin(t *testing.T) {
	for text, want := range map[string]bool{
		"env=prod":                         true,
		"env==prod,role=web":               true,
		"env in (prod,qa)":                 false,
		"env in (prod,qa),env!=qa":         true,
		"env in (prod,qa),env in (prod,x)": true,
		"env=qa,env=prod":                  true, // nobody
		"env!=qa":                          false,
		"env":                              false,
		"!env":                             false,
		"*":                                false,
		"role=web":                         false,
	} {
		s, err := Parse(text)
		require.NoError(t, err)
		assert.Equal(t, want, s.Within(map[string][]string{"env": {"prod"}}), text)
		assert.True(t, s.Within(nil), text)
	}
	two, err := Parse("env=prod")
	require.NoError(t, err)
	assert.False(t, two.Within(map[string][]string{"env": {"prod"}, "region": {"eu"}}), "one label of two")
}

func TestAnd(t *testing.T) {
	s, err := Parse("role in (web,api),env=prod")
	require.NoError(t, err)
	both, err := s.And(Of(map[string][]string{"region": {"us", "eu"}, "env": {"prod"}}))
	require.NoError(t, err)
	assert.Equal(t, "role in (api,web),env=prod,region in (eu,us)", both.String())
	all, err := Selector{}.And(Selector{})
	require.NoError(t, err)
	assert.Equal(t, "*", all.String())

	_, err = s.And(Of(map[string][]string{"k": {strings.Repeat("v", 255), strings.Repeat("w", 255), strings.Repeat("x", 255), strings.Repeat("y", 255)}}))
	require.ErrorContains(t, err, "at most 1024")
	many, err := Parse(strings.Repeat("k,", 31) + "k")
	require.NoError(t, err)
	_, err = many.And(s)
	require.ErrorContains(t, err, "at most 32")
}

// Within goes by what is written; that is checked by looking at hosts.
func TestWithinAndAndAgreeWithHosts(t *testing.T) {
	word := rapid.SampledFrom([]string{"a", "b", "c"})
	requirements := rapid.SampledFrom([]string{"a=a", "a!=a", "a in (a,b)", "a notin (b,c)", "a", "!a", "b=a", "b in (b,c)", "b!=c", "b"})
	var hosts []map[string]string
	for _, a := range []string{"", "a", "b", "c", "d"} {
		for _, b := range []string{"", "a", "b", "c", "d"} {
			labels := map[string]string{}
			if a != "" {
				labels["a"] = a
			}
			if b != "" {
				labels["b"] = b
			}
			hosts = append(hosts, labels)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s, err := Parse(strings.Join(rapid.SliceOfN(requirements, 1, 4).Draw(t, "requirements"), ","))
		require.NoError(t, err)
		labels := rapid.MapOfN(rapid.SampledFrom([]string{"a", "b"}), rapid.SliceOfN(word, 1, 3), 0, 2).Draw(t, "labels")
		outer := Of(labels)
		both, err := s.And(outer)
		require.NoError(t, err)
		inside := true
		for _, host := range hosts {
			assert.Equal(t, s.Matches(host) && outer.Matches(host), both.Matches(host), "%s of %v", both, host)
			inside = inside && (!s.Matches(host) || outer.Matches(host))
		}
		again, err := Parse(both.String())
		require.NoError(t, err)
		assert.Equal(t, both.String(), again.String())
		if s.Within(labels) {
			assert.True(t, inside, "%s is not within %s", s, outer)
		}
		assert.True(t, both.Within(labels), "%s within %s", both, outer)
	})
}

func TestValidValue(t *testing.T) {
	for value, want := range map[string]bool{"prod": true, "": true, "a b": false, "a,b": false, "a)": false, " a": false, "é": true, strings.Repeat("v", 256): false} {
		assert.Equal(t, want, ValidValue(value), "%q", value)
	}
}
