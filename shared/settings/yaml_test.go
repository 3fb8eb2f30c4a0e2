package settings_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// server is in every text below, because its url is required.
const serverYAML = "server: {url: u}\n"

func TestFileProblems(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"unknown key, near":         {"renewal:\n  concurency: 3\n", `t.yaml:2:3: renewal.concurency: unknown key; expected concurrency, tick_interval, ratio, small, count or wide; did you mean "concurrency"?`},
		"unknown key, elsewhere":    {"concurrency: 3\n", `t.yaml:1:1: concurrency: unknown key; did you mean "renewal.concurrency"?`},
		"unknown key, nothing near": {"renewal: {zzz: 3}\n", `t.yaml:1:11: renewal.zzz: unknown key; expected concurrency, tick_interval, ratio, small, count or wide`},
		"unknown key in list":       {"certificates:\n  - names: [a]\n    kee: x\n", `t.yaml:3:5: certificates[0].kee: unknown key; expected names, key, hooks, password or password_file; did you mean "key"?`},
		"duplicate key":             {"name: a\nverbose: true\nname: b\n", "t.yaml:3:1: name: duplicate key, first given on line 1; expected each key once"},
		"duplicate map key":         {"labels:\n  a: x\n  \"a\": y\n", "t.yaml:3:3: labels.a: duplicate key, first given on line 2; expected each key once"},
		"text for number":           {"renewal:\n  concurrency: many\n", `t.yaml:2:16: renewal.concurrency: cannot use "many"; expected a whole number from 1 to 1000`},
		"quoted number":             {"renewal:\n  concurrency: \"7\"\n", `t.yaml:2:16: renewal.concurrency: cannot use "7"; expected a whole number from 1 to 1000`},
		"fraction for whole number": {"renewal: {concurrency: 1.5}\n", `t.yaml:1:24: renewal.concurrency: cannot use the number 1.5; expected a whole number from 1 to 1000`},
		"number below range":        {"renewal: {concurrency: 0}\n", `t.yaml:1:24: renewal.concurrency: cannot use "0"; expected a whole number from 1 to 1000`},
		"number above range":        {"renewal: {concurrency: 1001}\n", `t.yaml:1:24: renewal.concurrency: cannot use "1001"; expected a whole number from 1 to 1000`},
		"number beyond its Go type": {"renewal: {small: 128}\n", `t.yaml:1:18: renewal.small: cannot use "128"; expected a whole number from -128 to 127`},
		"negative count":            {"renewal: {count: -1}\n", `t.yaml:1:18: renewal.count: cannot use "-1"; expected a whole number of at least 0`},
		"leading zero":              {"renewal: {concurrency: 010}\n", `t.yaml:1:24: renewal.concurrency: cannot use "010": a leading zero is ambiguous; write 0o for octal; expected a whole number from 1 to 1000`},
		"float out of range":        {"renewal: {ratio: 1.01}\n", `t.yaml:1:18: renewal.ratio: cannot use "1.01"; expected a number from 0 to 1`},
		"infinite float":            {"renewal: {ratio: .inf}\n", `t.yaml:1:18: renewal.ratio: cannot use the number .inf; expected a number from 0 to 1`},
		"duration without unit":     {"renewal: {tick_interval: 5}\n", `t.yaml:1:26: renewal.tick_interval: cannot use "5": it has no unit; expected a duration such as 90s, 12h or 30d from 100ms to 30d; did you mean "5s"?`},
		"duration without its unit": {"acme: {directory: d, timeout: 90}\n", `t.yaml:1:31: acme.timeout: cannot use "90": it has no unit; expected a duration such as 90s, 12h or 30d; did you mean "90d"?`},
		"bad duration":              {"renewal: {tick_interval: soon}\n", `t.yaml:1:26: renewal.tick_interval: cannot use "soon"; expected a duration such as 90s, 12h or 30d from 100ms to 30d`},
		"duration out of range":     {"renewal: {tick_interval: 31d}\n", `t.yaml:1:26: renewal.tick_interval: cannot use "31d"; expected a duration such as 90s, 12h or 30d from 100ms to 30d`},
		"yes for true":              {"verbose: yes\n", `t.yaml:1:10: verbose: cannot use "yes"; expected true or false; did you mean "true"?`},
		"number for bool":           {"verbose: 1\n", `t.yaml:1:10: verbose: cannot use the number 1; expected true or false`},
		"bad enum":                  {"log_level: wran\n", `t.yaml:1:12: log_level: cannot use "wran"; expected debug, info, warn or error; did you mean "warn"?`},
		"number for text":           {"name: 007\n", `t.yaml:1:7: name: cannot use the number 007; expected text of 1 to 16 characters; write it in quotes: "007"`},
		"bool for text":             {"name: true\n", `t.yaml:1:7: name: cannot use the truth value true; expected text of 1 to 16 characters; write it in quotes: "true"`},
		"text too long":             {"name: abcdefghijklmnopq\n", `t.yaml:1:7: name: cannot use "abcdefghijklmnopq"; expected text of 1 to 16 characters`},
		"empty text":                {"name: ''\n", `t.yaml:1:7: name: cannot use ""; expected text of 1 to 16 characters`},
		"nothing for text":          {"name:\n", `t.yaml:1:1: name: the value is empty; expected text of 1 to 16 characters; or remove the line`},
		"null in a list":            {"tags: [a, ~]\n", `t.yaml:1:11: tags[1]: cannot use an empty value; expected text`},
		"own type":                  {"listen: 300.1.1.1\n", `t.yaml:1:9: listen: cannot use "300.1.1.1": ParseAddr("300.1.1.1"): IPv4 field has value >255; expected an IP address`},
		"list for text":             {"name: [a]\n", `t.yaml:1:7: name: cannot use a list; expected text of 1 to 16 characters`},
		"section for text":          {"name:\n  a: b\n", `t.yaml:2:3: name: cannot use a section; expected text of 1 to 16 characters`},
		"text for section":          {"renewal: fast\n", `t.yaml:1:10: renewal: cannot use "fast"; expected a section with concurrency, tick_interval, ratio, small, count or wide`},
		"text for list":             {"tags: a\n", `t.yaml:1:7: tags: cannot use "a"; expected a list of at most 3 elements, each text`},
		"text for map":              {"labels: a\n", `t.yaml:1:9: labels: cannot use "a"; expected a map, each value text`},
		"text for list of sections": {"certificates: a\n", `t.yaml:1:15: certificates: cannot use "a"; expected a list of sections of at most 3 elements`},
		"text for named sections":   {"issuers: a\n", `t.yaml:1:10: issuers: cannot use "a"; expected named sections`},
		"text for element":          {"certificates: [web1]\n", `t.yaml:1:16: certificates[0]: cannot use "web1"; expected a section with names, key, hooks, password or password_file`},
		"list too long":             {"tags: [a, b, c, d]\n", `t.yaml:1:1: tags: there are 4; expected a list of at most 3 elements, each text`},
		"element of own type":       {"peers: [10.0.0.1, x]\n", `t.yaml:1:19: peers[1]: cannot use "x": ParseAddr("x"): unable to parse IP; expected an IP address`},
		"number in map":             {"labels:\n  rack.row: 12\n", `t.yaml:2:13: labels["rack.row"]: cannot use the number 12; expected text; write it in quotes: "12"`},
		"null key":                  {"labels: {~: a}\n", `t.yaml:1:10: labels: cannot use an empty value as a key; expected text`},
		"empty key":                 {"labels: {'': a}\n", `t.yaml:1:10: labels: the key is empty; expected a name`},
		"missing in list":           {"certificates:\n  - key: rsa-2048\n", `t.yaml:2:5: certificates[0].names: missing; expected a list of at least 1 element, each text`},
		"missing in named section":  {"issuers:\n  ca:\n", `t.yaml:2:3: issuers.ca.url: missing; expected text`},
		"missing in named section with a quoted name": {"issuers:\n  my ca: {}\n", `t.yaml:2:3: issuers["my ca"].url: missing; expected text`},
		"long text":                       {"log_level: " + strings.Repeat("x", 100) + "\n", `t.yaml:1:12: log_level: cannot use "` + strings.Repeat("x", 64) + `..."; expected debug, info, warn or error`},
		"missing in optional section":     {"acme: {}\n", `t.yaml:1:1: acme.directory: missing; expected text; set acme.directory in the configuration file or CERTCTL_T_ACME in the environment`},
		"secret as number":                {"acme: {directory: d, hmac: 12345}\n", `t.yaml:1:28: acme.hmac: cannot use this value; expected a secret text; write it in quotes`},
		"secret as list":                  {"acme: {directory: d, hmac: [s3cr3t]}\n", `t.yaml:1:28: acme.hmac: cannot use this value; expected a secret text`},
		"empty secret":                    {"acme: {directory: d, hmac: ''}\n", `t.yaml:1:28: acme.hmac: cannot use this value: it is empty; expected a secret text`},
		"secret file not a text":          {"acme: {directory: d, hmac_file: [a]}\n", `t.yaml:1:33: acme.hmac_file: cannot use a list; expected the path of a file with the secret`},
		"secret twice":                    {"acme: {directory: d, hmac: a, hmac_file: b}\n", `t.yaml:1:31: acme.hmac_file: both the secret and its file are given; expected only one of them`},
		"validator, place of the value":   {"renewal:\n  concurrency: 13\n", `t.yaml:2:16: renewal.concurrency: cannot use 13; expected a lucky number`},
		"validator, place of the section": {"renewal:\n  count: 26\n", `t.yaml:1:1: renewal: count is above concurrency`},
		"validator of an element":         {"certificates:\n- names: [a, b.invalid]\n", `t.yaml:2:14: certificates[0].names[1]: name b.invalid is reserved`},
		"no validator after a problem":    {"renewal: {concurrency: 13, small: x}\n", `t.yaml:1:35: renewal.small: cannot use "x"; expected a whole number from -128 to 127`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, report, err := loadText(t, test.text+serverYAML)
			assert.Equal(t, test.want, messages(t, report, err))
		})
	}
}

func TestDocumentProblems(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"tab":                         {"renewal:\n\tconcurrency: 3\n", "t.yaml:2:1: a tab is used for indentation; expected spaces"},
		"tab after spaces":            {"renewal:\n  \tconcurrency: 3\n", "t.yaml:2:3: a tab is used for indentation; expected spaces"},
		"second document":             {"name: a\n---\nname: b\n", "t.yaml:2:1: a second document begins here; expected only one, so remove the --- line"},
		"anchor and alias":            {"tags: &x [a]\npeers: *x\n", "t.yaml:1:7: anchors are not supported; write the value where it is used\nt.yaml:2:8: aliases are not supported; write the value where it is used, and put a text that begins with * in quotes"},
		"merge key":                   {"renewal:\n  <<: {small: 1}\n", "t.yaml:2:3: merge keys are not supported; write the keys where they are used"},
		"tag":                         {"name: !!str 1\n", "t.yaml:1:7: tags are not supported; put a text that begins with ! in quotes"},
		"complex key":                 {"? name\n: a\n", `t.yaml:1:1: "? " keys are not supported; write "key: value"`},
		"directive":                   {"%YAML 1.2\n---\nname: a\n", "t.yaml:1:1: directives are not supported; remove the line"},
		"list at the top":             {"- a\n", `t.yaml:1:1: cannot use a list; expected keys with values, such as "key: value"`},
		"text at the top":             {"hello\n", `t.yaml:1:1: cannot use "hello"; expected keys with values, such as "key: value"`},
		"open list":                   {"tags: [a,\n", "t.yaml:1:7: the text is not valid YAML: sequence end token ']' not found"},
		"open quote":                  {"name: 'a\n", "t.yaml:1:7: the text is not valid YAML: could not find end character of single-quoted text"},
		"two values":                  {"name: a: b\n", "t.yaml:1:7: the text is not valid YAML: mapping value is not allowed in this context"},
		"not UTF-8":                   {"name: a\nproxy: \"caf\xe9\"\n", "t.yaml:2:12: byte 0xe9 is not UTF-8; save the file in UTF-8"},
		"control character":           {"name: \"a\x00b\"\n", "t.yaml:1:9: character U+0000 is not allowed; write it as an escape in double quotes"},
		"closed too often, then deep": {"tags: " + strings.Repeat("]", 40) + strings.Repeat("[", 40), "t.yaml:1:79: nested deeper than 32 levels"},
		"deep flow":                   {"tags: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), "t.yaml:1:39: nested deeper than 32 levels"},
		"deep dashes":                 {"tags:\n" + strings.Repeat("- ", 40) + "a\n", "t.yaml:2:65: nested deeper than 32 levels"},
		"too many keys":               {"labels:\n" + strings.Repeat("  a: b\n", 10_001), "t.yaml:10002:4: more than 10000 keys in one section"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, report, err := loadText(t, test.text, "CERTCTL_T_URL=u")
			assert.Equal(t, test.want, messages(t, report, err))
		})
	}
}

// Many sections of one shape are an ordinary file, however many there are: only one section's keys are counted together.
func TestManySections(t *testing.T) {
	text := "server: {url: u}\nissuers:\n" + strings.Repeat("  \"%\":\n    url: u\n    ttl: 1d\n", 4000)
	for i := range 4000 {
		text = strings.Replace(text, "%", strconv.Itoa(i), 1)
	}
	d, _, err := loadText(t, text)
	require.NoError(t, err)
	assert.Len(t, d.Issuers, 4000)

	d, _, err = loadText(t, "server: {url: u}\nproxy: |\n"+strings.Repeat("  x\n\n", 100)+strings.Repeat("# c\n", 100)+"labels:\n"+strings.Repeat("  # c\n", 50)+"  a: |\n    b\n")
	require.NoError(t, err)
	assert.Equal(t, labels{"a": "b\n"}, d.Labels)
}
