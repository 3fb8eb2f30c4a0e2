package settings_test

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/certctl/certctl/shared/settings"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEnvironmentProblems(t *testing.T) {
	tests := map[string]struct{ env, want string }{
		"not a number":      {"CERTCTL_T_CONCURRENCY=lots", `environment CERTCTL_T_CONCURRENCY: cannot use "lots"; expected a whole number from 1 to 1000`},
		"empty number":      {"CERTCTL_T_CONCURRENCY=", `environment CERTCTL_T_CONCURRENCY: cannot use ""; expected a whole number from 1 to 1000`},
		"out of range":      {"CERTCTL_T_RATIO=2", `environment CERTCTL_T_RATIO: cannot use "2"; expected a number from 0 to 1`},
		"not a number NaN":  {"CERTCTL_T_RATIO=NaN", `environment CERTCTL_T_RATIO: cannot use "NaN"; expected a number from 0 to 1`},
		"no unit":           {"CERTCTL_T_TICK=60", `environment CERTCTL_T_TICK: cannot use "60": it has no unit; expected a duration such as 90s, 12h or 30d from 100ms to 30d; did you mean "60s"?`},
		"not a bool":        {"CERTCTL_T_VERBOSE=off", `environment CERTCTL_T_VERBOSE: cannot use "off"; expected true or false; did you mean "false"?`},
		"bad enum":          {"CERTCTL_T_LOG_LEVEL=INFO", `environment CERTCTL_T_LOG_LEVEL: cannot use "INFO"; expected debug, info, warn or error; did you mean "info"?`},
		"empty element":     {"CERTCTL_T_TAGS=a,,b", `environment CERTCTL_T_TAGS: element 2 is empty; expected a list of at most 3 elements, each text, separated by commas`},
		"too many elements": {"CERTCTL_T_TAGS=a,b,c,d", `environment CERTCTL_T_TAGS: there are 4; expected a list of at most 3 elements, each text`},
		"bad element":       {"CERTCTL_T_PEERS=10.0.0.1,x", `environment CERTCTL_T_PEERS: element 2: cannot use "x": ParseAddr("x"): unable to parse IP; expected an IP address`},
		"no key":            {"CERTCTL_T_LABELS=a=b,c", `environment CERTCTL_T_LABELS: entry 2 has no key; expected key=value, separated by commas`},
		"key twice":         {"CERTCTL_T_LABELS=a=b, a=c", `environment CERTCTL_T_LABELS: key "a" is given twice; expected each key once`},
		"not UTF-8":         {"CERTCTL_T_NAME=\xff", `environment CERTCTL_T_NAME: cannot use "\xff"; expected text of 1 to 16 characters`},
		"short secret":      {"CERTCTL_T_TOKEN=abc", `environment CERTCTL_T_TOKEN: cannot use this value; expected a secret text of at least 4 characters`},
		"empty secret":      {"CERTCTL_T_TOKEN=", `environment CERTCTL_T_TOKEN: cannot use this value: it is empty; expected a secret text of at least 4 characters`},
		"validator":         {"CERTCTL_T_CONCURRENCY=13", `environment CERTCTL_T_CONCURRENCY: cannot use 13; expected a lucky number`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			report, err := settings.Load(&daemon{}, settings.Options{Env: []string{"CERTCTL_T_URL=u", test.env}})
			assert.Equal(t, test.want, messages(t, report, err))
		})
	}
}

func TestUnknownEnvironmentIsWarnedAbout(t *testing.T) {
	report, err := settings.Load(&daemon{}, settings.Options{
		Env:      []string{"CERTCTL_T_URL=u", "CERTCTL_T_CONCURENCY=3", "CERTCTL_SOMETHING_ELSE=1", "CERTCTL_T_TOKENFILE=x", "CERTCTL_SIBLING=1", "OTHER=1"},
		KnownEnv: []string{"CERTCTL_SIBLING"},
	})
	require.NoError(t, err)
	assert.Equal(t, []string{
		`environment CERTCTL_SOMETHING_ELSE: no such setting, so it has no effect`,
		`environment CERTCTL_T_CONCURENCY: no such setting, so it has no effect; did you mean "CERTCTL_T_CONCURRENCY"?`,
		`environment CERTCTL_T_TOKENFILE: no such setting, so it has no effect; did you mean "CERTCTL_T_TOKEN_FILE"?`,
	}, report.Warnings())
}

func TestEnvNames(t *testing.T) {
	names, err := settings.EnvNames(&daemon{})
	require.NoError(t, err)
	assert.IsIncreasing(t, names)
	assert.Subset(t, names, []string{"CERTCTL_T_ACME", "CERTCTL_T_PROXY", "CERTCTL_T_TOKEN", "CERTCTL_T_TOKEN_FILE"})
	assert.NotContains(t, names, "CERTCTL_T_URL_FILE")
}

func TestFlagProblems(t *testing.T) {
	report, err := settings.Load(&daemon{}, settings.Options{Flags: map[string]string{
		"server.url": "u", "renewal.concurency": "3", "verbose": "perhaps", "server.token": "abcd", "server.token_file": "f", "certificates": "x",
	}})
	assert.Equal(t, `flag certificates: no such setting
flag renewal.concurency: no such setting; did you mean "renewal.concurrency"?
flag server.token_file: both server.token and server.token_file are given; expected only one of them
flag verbose: cannot use "perhaps"; expected true or false`, messages(t, report, err))
}

func TestSecretFromFile(t *testing.T) {
	config := write(t, "server: {url: u, token_file: token}\nacme: {directory: d, hmac_file: hmac}\n")
	token := writeSecret(t, config, "token", "from-yaml\r\n")
	hmac := writeSecret(t, config, "hmac", "key\n\n")
	other := writeSecret(t, config, "other", "from-elsewhere")

	var d daemon
	report, err := settings.Load(&d, settings.Options{File: config})
	require.NoError(t, err)
	assert.Equal(t, "from-yaml", d.Server.Token.Reveal(), "one line break is trimmed")
	assert.Equal(t, "key\n", d.Acme.HMAC.Reveal(), "only one")
	assert.Equal(t, config+":1:30 (read from "+token+")", report.Origin("server.token").String())
	assert.Equal(t, hmac, report.Origin("acme.hmac").SecretFile)

	report, err = settings.Load(&d, settings.Options{File: config, Env: []string{"CERTCTL_T_TOKEN_FILE=" + other}})
	require.NoError(t, err)
	assert.Equal(t, "from-elsewhere", d.Server.Token.Reveal())
	assert.Equal(t, "environment CERTCTL_T_TOKEN_FILE (read from "+other+")", report.Origin("server.token").String())

	absolute := write(t, "server: {url: u, token_file: '"+other+"'}\n")
	_, err = settings.Load(&d, settings.Options{File: absolute})
	require.NoError(t, err)
	assert.Equal(t, "from-elsewhere", d.Server.Token.Reveal())

	_, err = settings.Load(&d, settings.Options{Flags: map[string]string{"server.url": "u", "server.token_file": other}})
	require.NoError(t, err)
	assert.Equal(t, "from-elsewhere", d.Server.Token.Reveal())
}

func TestSupersededSecretFileIsNotRead(t *testing.T) {
	config := write(t, "server: {url: u, token_file: gone}\n")
	var d daemon
	_, err := settings.Load(&d, settings.Options{File: config, Env: []string{"CERTCTL_T_TOKEN=abcd"}})
	require.NoError(t, err)
	assert.Equal(t, "abcd", d.Server.Token.Reveal())
	_, err = settings.Load(&d, settings.Options{File: config, Env: []string{"CERTCTL_T_TOKEN_FILE=gone"}, Flags: map[string]string{"server.token": "efgh"}})
	require.NoError(t, err)
	assert.Equal(t, "efgh", d.Server.Token.Reveal())
}

func TestSecretFileProblems(t *testing.T) {
	config := write(t, "server: {url: u, token_file: token}\n")
	load := func(text string) error {
		writeSecret(t, config, "token", text)
		_, err := settings.Load(&daemon{}, settings.Options{File: config})
		return err
	}
	_, err := settings.Load(&daemon{}, settings.Options{File: config})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, config+":1:30: server.token_file: cannot read the secret file: open ")

	path := writeSecret(t, config, "token", "")
	require.EqualError(t, load("\n"), config+":1:30: server.token_file: cannot use the text in secret file "+path+": it is empty; expected a secret text of at least 4 characters")
	require.EqualError(t, load("s3"), config+":1:30: server.token_file: cannot use the text in secret file "+path+"; expected a secret text of at least 4 characters")
	require.EqualError(t, load(strings.Repeat("x", 64<<10+1)), config+":1:30: server.token_file: cannot read the secret file: "+path+" is larger than 64 KiB")
	require.NoError(t, load(strings.Repeat("x", 64<<10)))

	_, err = settings.Load(&daemon{}, settings.Options{Env: []string{"CERTCTL_T_URL=u", "CERTCTL_T_TOKEN=abcd", "CERTCTL_T_TOKEN_FILE=" + path}})
	require.EqualError(t, err, "environment CERTCTL_T_TOKEN_FILE: both CERTCTL_T_TOKEN and CERTCTL_T_TOKEN_FILE are given; expected only one of them")
	_, err = settings.Load(&daemon{}, settings.Options{Env: []string{"CERTCTL_T_URL=u", "CERTCTL_T_TOKEN_FILE="}})
	require.ErrorContains(t, err, "environment CERTCTL_T_TOKEN_FILE: cannot read the secret file: open ")
}

func TestSecretInFileAndValue(t *testing.T) {
	config := write(t, "server: {url: u, token_file: token, token: abcd}\n")
	writeSecret(t, config, "token", "efgh")
	_, err := settings.Load(&daemon{}, settings.Options{File: config})
	require.EqualError(t, err, config+":1:37: server.token: both the secret and its file are given; expected only one of them")
}
