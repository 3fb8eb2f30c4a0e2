package selector

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMatches(t *testing.T) {
	hosts := map[string]map[string]string{
		"web":    {"env": "prod", "role": "web"},
		"api":    {"env": "prod", "role": "api"},
		"old":    {"env": "prod", "role": "web", "legacy": ""},
		"stage":  {"env": "stage", "role": "web", "site/row": "7"},
		"nobody": nil,
	}
	for text, want := range map[string]string{
		"*":                                  "api nobody old stage web",
		"env=prod":                           "api old web",
		" env == prod ":                      "api old web",
		"env!=prod":                          "nobody stage",
		"env=prod,role in (web,api),!legacy": "api web",
		"role in (web, api) , env = stage":   "stage",
		"role notin (api)":                   "nobody old stage web",
		"role notin (api,web)":               "nobody",
		"legacy":                             "old",
		"legacy=":                            "old",
		"!env":                               "nobody",
		"! env":                              "nobody",
		"site/row=7":                         "stage",
		"in":                                 "",
		"role,role!=web":                     "api",
	} {
		s, err := Parse(text)
		require.NoError(t, err, text)
		var got []string
		for _, host := range []string{"api", "nobody", "old", "stage", "web"} {
			if s.Matches(hosts[host]) {
				got = append(got, host)
			}
		}
		assert.Equal(t, want, strings.Join(got, " "), text)
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	for text, says := range map[string]string{
		"":                              "is empty",
		"  ":                            "is empty",
		"env=prod,":                     "the end at character 10, where a label's name should be",
		"env=prod role=web":             `'r' at character 10, where a comma should be`,
		"env in web":                    `'w' at character 8, where an opening bracket should be`,
		"env in (web":                   "the end at character 12, where a comma or a closing bracket should be",
		"env in (a b)":                  `'b' at character 11`,
		"=prod":                         "a label's name should be",
		"*,env":                         "a label's name should be",
		"é=1":                           "a label's name should be",
		"a=\xff":                        "is not UTF-8",
		strings.Repeat("k", 64):         "longer than 63",
		"k=" + strings.Repeat("v", 256): "longer than 255",
		strings.Repeat("k", 1025):       "at most 1024",
		strings.Repeat("k,", 40) + "k":  "more than 32 requirements",
	} {
		_, err := Parse(text)
		require.ErrorContains(t, err, says, text)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"env=prod,role in (web,api),!legacy", "*", "a notin (b),c!=d,e==f", "in in (in)", "a in (,)", "a=,b"} {
		f.Add(text, "env", "prod")
	}
	f.Fuzz(func(t *testing.T, text, key, value string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		require.NoError(t, err, "%q became %q", text, s.String())
		assert.Equal(t, s.String(), again.String())
		labels := map[string]string{key: value}
		assert.Equal(t, s.Matches(labels), again.Matches(labels))
	})
}

func BenchmarkMatches(b *testing.B) {
	s, err := Parse("env=prod,role in (web,api),!legacy")
	require.NoError(b, err)
	labels := map[string]string{"env": "prod", "role": "api", "site": "north"}
	for b.Loop() {
		if !s.Matches(labels) {
			b.Fatal("no match")
		}
	}
}
