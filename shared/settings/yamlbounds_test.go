package settings_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/certctl/certctl/shared/settings"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// host has the shape of an agent's certificates.
type host struct {
	Certificates []managed `yaml:"certificates" doc:"What is kept valid."`
	Tags         []string  `yaml:"tags" doc:"Words."`
	Labels       labels    `yaml:"labels" doc:"Facts."`
	Proxy        string    `yaml:"proxy" doc:"Text."`
}

type managed struct {
	Name        string       `yaml:"name" doc:"Name."`
	Names       []string     `yaml:"names" required:"true" doc:"Names."`
	Issuer      string       `yaml:"issuer" doc:"Issuer."`
	Fallback    []string     `yaml:"fallback_issuers" doc:"Issuers."`
	Deployments []deployment `yaml:"deployments" doc:"Places."`
}

type deployment struct {
	Files  map[string]string `yaml:"files" doc:"Files."`
	Check  []string          `yaml:"check" doc:"Command."`
	Reload []string          `yaml:"reload" doc:"Command."`
	Verify map[string]string `yaml:"verify" doc:"Where."`
}

// certificates writes n entries with all that an ordinary one has, and below each of them one more line.
func certificates(n int, below string) string {
	var out strings.Builder
	out.WriteString("certificates:\n")
	for i := range n {
		fmt.Fprintf(&out, `  - name: c%[1]d
    names: [c%[1]d.example.com, www.c%[1]d.example.com]
    issuer: le
    fallback_issuers: [zerossl, coordinator]
    deployments:
      - files:
          fullchain: /etc/nginx/tls/c%[1]d/fullchain.pem
          key: /etc/nginx/tls/c%[1]d/privkey.pem
          chain: /etc/nginx/tls/c%[1]d/chain.pem
          owner: root
          group: nginx
          mode: "0644"
          key_mode: "0640"
        check: [nginx, -t]
        reload: [systemctl, reload, nginx]
        verify: {address: "127.0.0.1:443", server_name: c%[1]d.example.com}
%[2]s`, 10_000+i, below)
	}
	return out.String()
}

func loadHost(text string) (host, *settings.Report, error) {
	var h host
	report, err := settings.Load(&h, settings.Options{File: "t.yaml", Text: []byte(text)})
	return h, report, err
}

// allocated is how many MiB are allocated while f runs, garbage included: nearly all that reading a configuration costs is
// making things, so that it stands for the time too, and no load of the machine changes it.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int((after.TotalAlloc - before.TotalAlloc) >> 20)
}

// Thousands of certificates with all that they can have are an ordinary file, and each costs what one among few costs.
func TestManyEntries(t *testing.T) {
	cost := make(map[int]int)
	for _, n := range []int{300, 3000} {
		text := certificates(n, "")
		cost[n] = allocated(func() {
			h, report, err := loadHost(text)
			require.NoError(t, err)
			require.Len(t, h.Certificates, n)
			last := h.Certificates[n-1]
			require.Equal(t, fmt.Sprintf("/etc/nginx/tls/c%d/chain.pem", 9999+n), last.Deployments[0].Files["chain"])
			lines := strings.Split(text, "\n")
			column := strings.Index(lines[16*n], fmt.Sprintf(" c%d.", 9999+n)) + 2
			require.Equal(t, fmt.Sprintf("t.yaml:%d:%d", 1+16*n, column), report.Position(fmt.Sprintf("certificates[%d].deployments[0].verify.server_name", n-1)))
		})
	}
	t.Logf("%d MiB for 300, %d MiB for 3000", cost[300], cost[3000])
	assert.Less(t, cost[3000], 13*cost[300])

	// A template that leaves keys without values, and a mistake in the last line.
	text := strings.ReplaceAll(certificates(1000, "        # none\n"), "check: [nginx, -t]", "check:") + "    nmaes: [x]\n"
	_, report, err := loadHost(text)
	assert.Equal(t, `t.yaml:17002:5: certificates[999].nmaes: unknown key; expected name, names, issuer, fallback_issuers or deployments; did you mean "names"?`, messages(t, report, err))
	_, report, err = loadHost(strings.Replace(text, "    nmaes: [x]\n", "   nmaes: [x]\n", 1))
	assert.Equal(t, "t.yaml:17002:4: the text is not valid YAML: value is not allowed in this context", messages(t, report, err))
}

// Files that are made to cost time and memory are refused, or cost no more than an honest one of their size: in each of
// these, something that is cheap in an ordinary file grows with the square of it.
func TestHostileFilesAreBounded(t *testing.T) {
	const size = 11 << 20
	var indented strings.Builder
	for i := range 1500 {
		indented.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	key := strings.Repeat("k", 20<<10)
	tests := map[string]struct {
		text, want string
		most       int // MiB
	}{
		"nested by indentation":      {indented.String(), "t.yaml:33:34: nested deeper than 32 levels", 300},
		"nested by dashes on lines":  {strings.ReplaceAll(indented.String(), "a:", "-"), "t.yaml:33:33: nested deeper than 32 levels", 300},
		"nested brackets":            {"tags: " + strings.Repeat("[", 50_000), "t.yaml:1:39: nested deeper than 32 levels", 400},
		"one long line of values":    {"tags: [" + strings.Repeat("a,", 100_000) + "]", "", 400},
		"too many values":            {"tags: [" + strings.Repeat("a,", 750_000) + "]", "t.yaml:1:1500005: the file has too many values; expected a configuration of at most 1500000 words and marks", 1200},
		"anchors":                    {"tags:\n" + strings.Repeat("- &a [*a, *a, *a]\n", 5000), "t.yaml:2:3: anchors are not supported; write the value where it is used", 400},
		"keys in one section":        {"labels:\n" + strings.Repeat("  a: b\n", 20_000), "t.yaml:10002:4: more than 10000 keys in one section", 200},
		"keys in many sections":      {strings.Repeat("labels:\n"+strings.Repeat("  a: b\n", 9_999), 5), "t.yaml:20142:4: too many sections of thousands of keys; expected at most two of 10000, or more that are shorter", 200},
		"keys in brackets":           {"tags: [\n" + strings.Repeat("a: [b]\n", 12_000) + "]", "t.yaml:10002:2: more than 10000 keys in one section", 200},
		"keys without values":        {"labels: {" + strings.Repeat("a,", 20_000) + "}", "t.yaml:1:2011: more than 1000 keys without a value in braces and brackets; remove them", 300},
		"colons without values":      {"labels: {" + strings.Repeat("a: ,", 20_000) + "}", "t.yaml:1:4013: more than 1000 keys without a value in braces and brackets; remove them", 300},
		"lines without values":       {"tags: [" + strings.Repeat("\na:\n,", 5000) + "]", "t.yaml:2002:2: more than 1000 keys without a value in braces and brackets; remove them", 300},
		"dashes without values":      {"tags:\n" + strings.Repeat("-\n", 20_000), "t.yaml:2:2: tags[0]: cannot use an empty value; expected text", 150},
		"a long key":                 {key + ": [" + strings.Repeat("a,", 20_000) + "]", `t.yaml:1:1: ["` + key[:64] + `..."]: unknown key; expected certificates, tags, labels or proxy`, 100},
		"long keys below each other": {key + ":\n  " + key + ": [" + strings.Repeat("a,", 20_000) + "]", `t.yaml:1:1: ["` + key[:64] + `..."]: unknown key; expected certificates, tags, labels or proxy`, 100},
		"documents":                  {strings.Repeat("---\ntags: [a]\n", 5000), "t.yaml:3:1: a second document begins here; expected only one, so remove the --- line", 100},
		"heads without documents":    {"---\n---\nproxy: lost\n", "t.yaml:2:1: a second document begins here; expected only one, so remove the --- line", 1},
		"ends of documents":          {strings.Repeat("tags: [a]\n...\n", 5000), "t.yaml:4:1: the document ends a second time here; expected only one, so remove the ... line", 100},
		"angles":                     {"proxy: " + strings.Repeat("<", size), "t.yaml:1:23176: too many < in a row; expected an ordinary text", 100},
		"empty lines":                {"proxy: |\n  a" + strings.Repeat("\n", size) + "tags: [a]\n", "t.yaml:23160:1: too many empty lines in a row for a file of this size; remove some", 100},
		"empty lines after much":     {"proxy: |\n  " + strings.Repeat("a", size) + strings.Repeat("\r\n", 100) + "tags: [a]\n", "t.yaml:41:1: too many empty lines in a row for a file of this size; remove some", 100},
		"tabs":                       {"proxy: \"" + strings.Repeat("\ta", size/4) + "\"\n", "t.yaml:1:5767177: too many tabs in a long line; use spaces, or break the line", 100},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var report *settings.Report
			var err error
			cost := allocated(func() { _, report, err = loadHost(test.text) })
			assert.Less(t, cost, test.most, "MiB")
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			first, _, _ := strings.Cut(messages(t, report, err), "\n")
			assert.Equal(t, test.want, first)
		})
	}
}

// What is bounded for the sake of hostile files is far from what people write.
func TestBoundsLeaveOrdinaryTextsAlone(t *testing.T) {
	text := "# " + strings.Repeat("<", 200) + "\n" + strings.Repeat("\n", 500) + "proxy: \"a\tb\tc\"\n" + strings.Repeat("\r\n", 500) +
		"labels: {a: x, b: y}\n" + "tags: [\n" + strings.Repeat("  a,\n", 3000) + "]\n...\n" + strings.Repeat("# end\n", 500)
	h, _, err := loadHost(text)
	require.NoError(t, err)
	assert.Equal(t, "a\tb\tc", h.Proxy)
	assert.Len(t, h.Tags, 3000)
}
