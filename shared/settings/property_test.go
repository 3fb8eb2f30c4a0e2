package settings_test

import (
	"bytes"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/certctl/certctl/shared/settings"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "90s": 90 * time.Second, "30d": 720 * time.Hour, "1d12h": 36 * time.Hour, "-1d": -24 * time.Hour,
		"-1d12h": -36 * time.Hour, "1d1ms": 24*time.Hour + time.Millisecond, "0d": 0, "106751d": 106751 * 24 * time.Hour,
	} {
		got, err := settings.ParseDuration(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "d", "-d", "5", "1.5d", "+1d", "1d-1h", "1d+1h", "--1d", "1d2", "1d1d", "12h1d", "106752d", "106751d24h", "99999999999d", "1 d", "5days"} {
		_, err := settings.ParseDuration(text)
		assert.Error(t, err, text)
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 5 * time.Minute: "5m", 12 * time.Hour: "12h", 90 * time.Second: "1m30s", time.Hour + time.Second: "1h0m1s",
		24 * time.Hour: "1d", 36 * time.Hour: "1d12h", -36 * time.Hour: "-1d12h", 100 * time.Millisecond: "100ms", -10 * time.Minute: "-10m",
	} {
		assert.Equal(t, want, settings.FormatDuration(d))
	}
}

func TestDurationRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Min(-math.MaxInt64).Draw(t, "d"))
		got, err := settings.ParseDuration(settings.FormatDuration(d))
		if err != nil || got != d {
			t.Fatalf("%d wrote %q and read %d, %v", d, settings.FormatDuration(d), got, err)
		}
	})
}

// property has no secrets and no bounds, so that every value can be drawn.
type property struct {
	Text   string            `yaml:"text" doc:"d"`
	Yes    bool              `yaml:"yes" doc:"d"`
	Int    int               `yaml:"int" env:"CERTCTL_P_INT" doc:"d"`
	Uint   uint16            `yaml:"uint" doc:"d"`
	Float  float64           `yaml:"float" doc:"d"`
	Float3 float32           `yaml:"float32" doc:"d"`
	Wait   time.Duration     `yaml:"wait" doc:"d"`
	Addr   netip.Addr        `yaml:"addr" default:"127.0.0.1" doc:"d"`
	List   []string          `yaml:"list" default:"x" doc:"d"`
	Waits  []time.Duration   `yaml:"waits" doc:"d"`
	Map    map[string]string `yaml:"map" default:"a=b" doc:"d"`
	Parts  []part            `yaml:"parts" doc:"d"`
	Named  map[string]part   `yaml:"named" doc:"d"`
	Maybe  *part             `yaml:"maybe" doc:"d"`
}

type part struct {
	Text string            `yaml:"text" default:"t" doc:"d"`
	Map  map[string]uint64 `yaml:"map" doc:"d"`
}

func drawPart(t *rapid.T) part {
	return part{
		Text: rapid.String().Draw(t, "text"),
		Map:  rapid.MapOf(rapid.StringN(1, -1, -1), rapid.Uint64()).Draw(t, "map"),
	}
}

func drawProperty(t *rapid.T) property {
	parts := rapid.Custom(drawPart)
	p := property{
		Text: rapid.String().Draw(t, "text"), Yes: rapid.Bool().Draw(t, "yes"), Int: rapid.Int().Draw(t, "int"),
		Uint: rapid.Uint16().Draw(t, "uint"), Float: rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64).Draw(t, "float"),
		Float3: rapid.Float32Range(-math.MaxFloat32, math.MaxFloat32).Draw(t, "float32"),
		Wait:   time.Duration(rapid.Int64Min(-math.MaxInt64).Draw(t, "wait")),
		Addr:   netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr"))),
		List:   rapid.SliceOf(rapid.String()).Draw(t, "list"),
		Map:    rapid.MapOf(rapid.StringN(1, -1, -1), rapid.String()).Draw(t, "map"),
		Waits:  rapid.SliceOf(rapid.Custom(func(t *rapid.T) time.Duration { return time.Duration(rapid.Int32().Draw(t, "w")) })).Draw(t, "waits"),
		Parts:  rapid.SliceOfN(parts, 0, 3).Draw(t, "parts"),
		Named:  rapid.MapOfN(rapid.StringN(1, -1, -1), parts, 0, 3).Draw(t, "named"),
	}
	if rapid.Bool().Draw(t, "maybe") {
		one := drawPart(t)
		p.Maybe = &one
	}
	return p
}

func TestEffectiveRoundTrip(t *testing.T) {
	path := write(t, "")
	rapid.Check(t, func(rt *rapid.T) {
		in := drawProperty(rt)
		text, err := settings.Effective(&in)
		if err != nil {
			rt.Fatal(err)
		}
		overwrite(t, path, text)
		var out property
		report, err := settings.Load(&out, settings.Options{File: path})
		if err != nil {
			rt.Fatalf("%v\n%s", err, text)
		}
		again, err := settings.Effective(&out)
		if err != nil || !bytes.Equal(text, again) {
			rt.Fatalf("reads back differently (%v):\n%s\n%s", err, text, again)
		}
		if out.Text != in.Text || out.Int != in.Int || out.Float != in.Float || out.Wait != in.Wait || out.Addr != in.Addr {
			rt.Fatalf("got %+v, want %+v", out, in)
		}
		for _, v := range report.Values() {
			if v.Origin.Source != settings.SourceFile {
				rt.Fatalf("%s came from %s", v.Path, v.Origin)
			}
		}
	})
}

// Whatever subset of the sources gives a setting, the last one wins and is named.
func TestPrecedence(t *testing.T) {
	path := write(t, "")
	rapid.Check(t, func(rt *rapid.T) {
		options, want, source := settings.Options{File: path}, 0, settings.SourceDefault
		overwrite(t, path, nil)
		if rapid.Bool().Draw(rt, "file") {
			overwrite(t, path, []byte("int: 1\n"))
			want, source = 1, settings.SourceFile
		}
		if rapid.Bool().Draw(rt, "env") {
			options.Env = []string{"CERTCTL_P_INT=2"}
			want, source = 2, settings.SourceEnvironment
		}
		if rapid.Bool().Draw(rt, "flag") {
			options.Flags = map[string]string{"int": "3"}
			want, source = 3, settings.SourceFlag
		}
		var p property
		report, err := settings.Load(&p, options)
		if err != nil || p.Int != want || report.Origin("int").Source != source {
			rt.Fatalf("got %d from %s (%v), want %d from %s", p.Int, report.Origin("int"), err, want, source)
		}
	})
}

func FuzzLoadFile(f *testing.F) {
	for _, seed := range []string{
		fullYAML, "", "a", "- a", "{}", "renewal: {concurrency: 1", "name: |\n  x", "a: &b c", "tags:\n\t- x", "? a", "--- \n...\n---", "labels: {[a]: b}",
		"labels:\n  a: >-\n    b\n", "certificates:\n-\n-\n", "server: {url: u, token_file: ../../x}", "name: \"\\x41\\u0042\"", "issuers: {a: , b}", "\r\r", "a:\r  b: c",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := write(t, string(text))
		var d daemon
		report, err := settings.Load(&d, settings.Options{File: path, Env: []string{"CERTCTL_T_URL=u"}})
		if report == nil {
			t.Fatalf("no report: %v", err)
		}
		if err == nil {
			if d.Renewal.Concurrency < 1 || d.Renewal.Concurrency > 1000 || len(d.Tags) > 3 {
				t.Fatalf("out of bounds: %+v", d)
			}
			if _, err := settings.Effective(&d); err != nil {
				t.Fatal(err)
			}
			return
		}
		lines := strings.Count(string(text), "\n") + strings.Count(string(text), "\r") + 1
		var e *settings.Error
		require.ErrorAs(t, err, &e)
		for _, p := range e.Problems {
			if p.Origin.Source == settings.SourceFile && (p.Origin.Line < 0 || p.Origin.Line > lines || p.Origin.Line > 0 && p.Origin.Column < 1) {
				t.Fatalf("no such place: %v", p)
			}
			if p.Err == nil || p.Err.Error() == "" {
				t.Fatal("a problem without words")
			}
		}
	})
}

func FuzzText(f *testing.F) {
	f.Add("5s", "a,b", "k=v")
	f.Add("", ",", "=")
	f.Fuzz(func(t *testing.T, duration, list, entries string) {
		var d daemon
		_, err := settings.Load(&d, settings.Options{Flags: map[string]string{
			"server.url": "u", "renewal.tick_interval": duration, "tags": list, "labels": entries,
		}})
		if err == nil && (d.Renewal.Tick < 100*time.Millisecond || len(d.Tags) > 3) {
			t.Fatalf("out of bounds: %+v", d)
		}
	})
}
