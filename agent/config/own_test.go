package config_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/shared/settings"
)

func TestNothingIsInstalledOverTheAgentItself(t *testing.T) {
	dir := t.TempDir()
	at := func(steps ...string) string { return filepath.Join(append([]string{dir}, steps...)...) }
	for _, name := range []string{"state", "etc", "certs"} {
		require.NoError(t, os.Mkdir(at(name), 0o700))
	}
	require.NoError(t, os.WriteFile(at("etc", "eab.key"), []byte("c2VjcmV0"), 0o600))
	require.NoError(t, os.WriteFile(at("etc", "agent.yaml"), nil, 0o600))
	text := strings.NewReplacer("STATE", at("state"), "KEYS", at("keys"), "SOCKET", at("run", "control.sock"), "CA", at("etc", "ca.pem")).Replace(`
state_dir: 'STATE'
key_dir: 'KEYS'
control: {socket: 'SOCKET'}
issuers:
  one: {acme: {directory: https://one.example/directory, terms_agreed: true, ca_file: 'CA', eab: {key_id: k, hmac_key_file: eab.key}}}
`)
	var s config.Settings
	report, err := settings.Load(&s, settings.Options{File: at("etc", "agent.yaml"), Text: []byte(text)})
	require.NoError(t, err)
	refused := map[string]string{
		at("state", "state.db"):           "state_dir",
		at("state", "new", "a.pem"):       "state_dir",
		at("etc", "..", "state", "a.pem"): "state_dir",
		at("state"):                       "state_dir",
		at("keys", "a.pem"):               "key_dir",
		at("etc", "agent.yaml"):           "the configuration file",
		at("etc", "ca.pem"):               "issuers.one.acme.ca_file",
		at("etc", "eab.key"):              "the file of issuers.one.acme.eab.hmac_key",
		at("run", "control.sock"):         "control.socket",
		at("etc"):                         "holds a file of the agent itself",
		dir:                               "holds a directory of the agent itself",
	}
	if runtime.GOOS != "windows" {
		require.NoError(t, os.Symlink(at("state"), at("certs", "link")))
		require.NoError(t, os.Symlink(at("etc", "agent.yaml"), at("certs", "a.pem")))
		refused[at("certs", "link", "deeper", "a.pem")] = "state_dir"
		refused[at("certs", "a.pem")] = "the configuration file"
	}
	own := s.Own(report)
	for path, says := range refused {
		assert.ErrorContains(t, own.Check(path), says, path)
	}
	for _, path := range []string{at("certs", "b.pem"), at("certs"), at("etc", "certs", "a.pem"), at("state2"), at("statedb")} {
		assert.NoError(t, own.Check(path), path)
	}
}
