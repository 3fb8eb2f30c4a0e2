package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/health"
)

func TestPreconditions(t *testing.T) {
	const tag = `"abc,def"`
	for name, c := range map[string]struct {
		match, noneMatch []string
		status           int
	}{
		"none": {nil, nil, 200},

		"the tag":                        {nil, []string{tag}, 304},
		"another":                        {nil, []string{`"abc"`}, 200},
		"weak":                           {nil, []string{`W/` + tag}, 304},
		"a weak one of another":          {nil, []string{`W/"abc"`}, 200},
		"weak, as it is not written":     {nil, []string{`w/` + tag}, 200},
		"anything":                       {nil, []string{"*"}, 304},
		"anything, with spaces":          {nil, []string{" * "}, 304},
		"in a list":                      {nil, []string{`"a", ` + tag + ` , "b"`}, 304},
		"last in a list without spaces":  {nil, []string{`"a",W/"b",` + tag}, 304},
		"in the second line":             {nil, []string{`"a", "b"`, `"c", ` + tag}, 304},
		"in none of the lines":           {nil, []string{`"a", "b"`, `"c"`}, 200},
		"among empty elements":           {nil, []string{`, ,` + tag + `,`}, 304},
		"after a tab":                    {nil, []string{"\"a\",\t" + tag}, 304},
		"nothing":                        {nil, []string{""}, 200},
		"empty elements alone":           {nil, []string{" , ,"}, 200},
		"without quotes":                 {nil, []string{`abc,def`}, 200},
		"without the second quote":       {nil, []string{`"abc,def`}, 200},
		"after what is no tag":           {nil, []string{`abc, ` + tag}, 200},
		"before what is no tag":          {nil, []string{tag + `, abc`}, 304},
		"without a comma before":         {nil, []string{`"a" ` + tag}, 200},
		"with a space in it":             {nil, []string{`"a b", ` + tag}, 200},
		"an empty tag":                   {nil, []string{`"", ` + tag}, 304},
		"octets beyond ASCII in another": {nil, []string{"\"\xe4\", " + tag}, 304},
		"anything among others":          {nil, []string{`*, "a"`}, 200},
		"anything in another line":       {nil, []string{`"a"`, `*`}, 200},

		"If-Match":                         {[]string{tag}, nil, 200},
		"If-Match, another":                {[]string{`"abc"`}, nil, 412},
		"If-Match, weak":                   {[]string{"W/" + tag}, nil, 412},
		"If-Match, weak and strong":        {[]string{"W/" + tag + ", " + tag}, nil, 200},
		"If-Match, anything":               {[]string{"*"}, nil, 200},
		"If-Match, nothing":                {[]string{""}, nil, 412},
		"If-Match, no tag":                 {[]string{"abc"}, nil, 412},
		"If-Match, lines":                  {[]string{`"a"`, tag}, nil, 200},
		"If-Match comes first":             {[]string{`"a"`}, []string{tag}, 412},
		"If-Match holds, so the other one": {[]string{tag}, []string{tag}, 304},
		"If-Match holds, and so does this": {[]string{"*"}, []string{`"a"`}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			if c.match != nil {
				header["If-Match"] = c.match
			}
			if c.noneMatch != nil {
				header["If-None-Match"] = c.noneMatch
			}
			assert.Equal(t, c.status, conditionsOf(header).outcome(tag))
		})
	}
}

// What is read as a tag stood there, between its quotes.
func FuzzParseTags(f *testing.F) {
	for _, seed := range []string{`*`, `"a"`, `W/"a", "b"`, `"a`, `,,"",`, "\"\x00\"", `"a" "b"`} {
		f.Add(seed, `"c"`)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		for _, tag := range parseTags([]string{first, second}).tags {
			require.GreaterOrEqual(t, len(tag.opaque), 2)
			inside := tag.opaque[1 : len(tag.opaque)-1]
			require.Equal(t, `"`+inside+`"`, tag.opaque)
			require.NotContains(t, inside, `"`)
			written := tag.opaque
			if tag.isWeak {
				written = "W/" + written
			}
			require.True(t, strings.Contains(first, written) || strings.Contains(second, written))
		}
	})
}

// A tag is good for one answer in one encoding, until its moment, and no octet of it
// may be another.
func TestTagsOfEditions(t *testing.T) {
	now := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	one, other := edition{1}, edition{2}
	until := now.Add(time.Minute).UnixNano()
	tag := one.tag(until, encodingNone)
	none, both := []string{encodingNone}, []string{encodingGzip, encodingNone}
	assert.True(t, one.good(tag, now, none))
	assert.True(t, one.good(tag, now, both))
	assert.False(t, other.good(tag, now, both))
	assert.True(t, one.good(tag, time.Unix(0, until-1), none))
	assert.False(t, one.good(tag, time.Unix(0, until), none), "the answer is another one from there on")
	assert.True(t, one.good(one.tag(0, encodingNone), now.AddDate(100, 0, 0), none))
	zipped := one.tag(until, encodingGzip)
	assert.NotEqual(t, tag, zipped)
	assert.True(t, one.good(zipped, now, both))
	assert.False(t, one.good(zipped, now, none), "the client could not read it")
	for i := range tag {
		for _, octet := range []byte{tag[i] ^ 1, 'A', '"', '='} {
			if changed := tag[:i] + string(octet) + tag[i+1:]; changed != tag {
				// The quotes are the parser's to judge.
				assert.False(t, one.good(changed, now, both) && i > 0 && i < len(tag)-1, changed)
			}
		}
	}
	for _, nonsense := range []string{``, `""`, `"AAAA"`, strings.Repeat("A", 34), `"` + strings.Repeat("=", 32) + `"`} {
		assert.False(t, one.good(nonsense, now, both), nonsense)
	}
}

func TestMomentsOfTags(t *testing.T) {
	assert.Zero(t, momentOf(time.Time{}))
	assert.Zero(t, momentOf(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)), "no number of nanoseconds says so")
	at := time.Date(2031, 5, 6, 7, 8, 9, 10, time.UTC)
	assert.Equal(t, at.UnixNano(), momentOf(at))
}

func TestAcceptsGzip(t *testing.T) {
	for value, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "x-gzip": true, "deflate, gzip;q=0.5": true, "gzip;q=0": false, "gzip; q=0.001": true, "br": false,
		"*": true, "*;q=0": false, "*, gzip;q=0": false, "gzip;q=0, *": false, "*;q=0, gzip": true, "identity": false, "gzip;q=x": false, "gzip;q=2": false, "gzipped": false,
	} {
		assert.Equal(t, want, acceptsGzip(http.Header{"Accept-Encoding": {value}}), "%q", value)
	}
	assert.True(t, acceptsGzip(http.Header{"Accept-Encoding": {"br", "gzip"}}))
	assert.False(t, acceptsGzip(http.Header{}))
}

// The clock notes the next moment at which what was asked would be answered otherwise.
func TestClock(t *testing.T) {
	now := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	c := health.At(now)
	assert.True(t, c.Reached(now))
	assert.True(t, c.Passed(now.Add(-1)))
	assert.Zero(t, c.Until, "what is over stays so")
	assert.False(t, c.Passed(now))
	assert.Equal(t, now.Add(1), c.Until)
	c = health.At(now)
	for _, seconds := range []int{3, 1, 2} {
		assert.False(t, c.Reached(now.Add(time.Duration(seconds)*time.Second)), fmt.Sprint(seconds))
	}
	assert.Equal(t, now.Add(time.Second), c.Until, "the first of them")
}
