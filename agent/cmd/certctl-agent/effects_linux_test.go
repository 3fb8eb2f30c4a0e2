package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/internal/effects"
	"github.com/certctl/certctl/internal/testca"
	"github.com/certctl/certctl/shared/cli"
	"github.com/certctl/certctl/shared/wire"
)

// effectsBase and effectsOther are what stands below lists and named sections: as little
// as there can be, and everything.
const (
	effectsBase = `
issuers:
  http: {acme: {directory: "https://ca.example.com/a", terms_agreed: true}}
  alpn: {acme: {directory: "https://ca.example.com/a", terms_agreed: true}}
  webroot: {acme: {directory: "https://ca.example.com/a", terms_agreed: true}}
  hook: {acme: {directory: "https://ca.example.com/a", terms_agreed: true, challenge: dns-01, dns_01: {exec: {command: [/bin/hook]}}}}
  update: {acme: {directory: "https://ca.example.com/a", terms_agreed: true, challenge: dns-01, dns_01: {rfc2136: {server: "ns1.example.com:53"}}}}
certificates:
  - name: one
    names: [one.example.com]
    issuer: http
    deployments:
      - files: {certificate: /srv/one/cert.pem, key: /srv/one/key.pem}
        check: [/bin/check]
        reload: [/bin/reload]
        verify: {address: "127.0.0.1:1"}
`
	effectsOther = `
issuers:
  http:
    acme:
      directory: "https://ca.example.com/b"
      email: [pki@example.com]
      terms_agreed: true
      ca_file: $DIR/roots.pem
      preferred_chain: Other Root
      eab: {key_id: other-id, hmac_key: b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI}
      http_01: {listen: "127.0.0.1:8001"}
    limits: {orders_per_hour: 3, burst: 5, concurrency: 7}
  alpn: {acme: {directory: "https://ca.example.com/a", terms_agreed: true, challenge: tls-alpn-01, tls_alpn_01: {listen: "127.0.0.1:8002"}}}
  webroot: {acme: {directory: "https://ca.example.com/a", terms_agreed: true, http_01: {webroot: /srv/www}}}
  hook: {acme: {directory: "https://ca.example.com/a", terms_agreed: true, challenge: dns-01, dns_01: {exec: {command: [/bin/other], timeout: 9s}, propagation_wait: 11s}}}
  update:
    acme:
      directory: "https://ca.example.com/a"
      terms_agreed: true
      challenge: dns-01
      dns_01:
        rfc2136: {server: "ns2.example.com:53", zone: example.com, tsig_key_name: other-key, tsig_algorithm: hmac-sha512, tsig_secret: b3RoZXI=, ttl: 13s}
certificates:
  - name: two
    names: [two.example.com]
    issuer: alpn
    fallback_issuers: [hook]
    key: rsa-3072
    key_policy: reuse
    profile: short
    lifetime: 9d
    deployments:
      - id: web
        files:
          certificate: /srv/two/cert.pem
          chain: /srv/two/chain.pem
          fullchain: /srv/two/fullchain.pem
          key: /srv/two/key.pem
          combined: /srv/two/combined.pem
          owner: "4001"
          group: "4002"
          mode: "0640"
          key_mode: "0400"
          create_directories: true
        check: [/bin/check, two]
        check_timeout: 14s
        reload: [/bin/reload, two]
        reload_timeout: 15s
        verify: {address: "127.0.0.1:2", server_name: sni.example.com, command: [/bin/verify], patience: 16s}
      - files: {directory: /srv/three}
  - name: limited
    names: [limited.example.com]
    issuer: http
`
)

// of is the agent that was put together.
func of(part any) *machine { return part.(*program).Machine }

// program is the agent as run puts it together, and what run makes before.
type program struct {
	Machine *machine
	Level   any
	Log     any
}

// Every setting has an effect: the agent is put together as "run" does it, with none of
// them, with all of them in the file, and with all of them that have a variable in the
// environment.
func TestEverySettingHasAnEffect(t *testing.T) {
	issuer := func(name, setting, at, byDefault, want string) effects.Effect {
		return effects.Effect{Setting: "issuers.<name>." + setting, At: "Machine.roll.parts.issuers[" + name + "].config." + at, Default: byDefault, Want: want}
	}
	certificate := func(setting, at, byDefault, want string) effects.Effect {
		return effects.Effect{Setting: "certificates[]." + setting, At: "Machine.roll.local[0]." + at, Default: byDefault, Want: want}
	}
	deployment := func(setting, at, byDefault, want string) effects.Effect {
		return certificate("deployments[]."+setting, "Deployments[0]."+at, byDefault, want)
	}
	file := func(setting, path string) effects.Effect {
		return effects.Effect{Setting: "certificates[].deployments[].files." + setting, Default: "false", Want: "true", See: func(p any) string {
			var files string
			for _, at := range []string{"[0]", "[1]"} {
				text, err := effects.Read(p, "Machine.roll.local[0].Deployments"+at+".Target.files")
				require.NoError(t, err)
				files += text
			}
			return strconv.FormatBool(strings.Contains(files, path))
		}}
	}
	effects.Program{
		Settings: &config.Settings{},
		Base:     effectsBase,
		Other:    effectsOther,
		Assemble: assembled,
		Effects: []effects.Effect{
			{Setting: "state_dir", Base: "$DIR/state", Value: "$DIR/other", At: "Machine.engine.cfg.ScratchDir", Default: "", Want: "$DIR/other/snapshots"},
			{Setting: "key_dir", Value: "$DIR/keys", At: "Machine.state.keys.path", Want: "$DIR/keys/certificates"},
			{Setting: "log.level", Value: "debug", At: "Level.val.v", Default: "0", Want: "-4"},
			{Setting: "log.format", Value: "text", At: "Log.handler:type", Default: "slog.JSONHandler", Want: "slog.TextHandler"},
			{Setting: "control.socket", Base: "$DIR/base.sock", Value: "$DIR/other.sock", At: "Machine.socket.cfg.Path", Want: "$DIR/other.sock"},
			{Setting: "control.group", Value: "4003", At: "Machine.socket.cfg.Group", Want: "4003"},
			{Setting: "coordinator.servers", Value: "https://c1.example.com,https://c2.example.com", At: "Machine.syncer.cfg.Servers", Default: "[]", Want: "[https://c1.example.com https://c2.example.com]"},
			{Setting: "coordinator.sync_timeout", Value: "17s", At: "Machine.syncer.cfg.Timeout", Default: "30s", Want: "17s"},
			{Setting: "renewal.concurrency", Value: "3", At: "Machine.engine.pace.Concurrency", Default: "25", Want: "3"},
			{Setting: "renewal.tick_interval", Value: "4s", At: "Machine.engine.pace.TickInterval", Default: "5s", Want: "4s"},
			{Setting: "renewal.tick_budget", Value: "18s", At: "Machine.engine.pace.TickBudget", Default: "2m0s", Want: "18s"},
			{Setting: "renewal.issue_timeout", Value: "3m", At: "Machine.engine.pace.IssueTimeout", Default: "5m0s", Want: "3m0s"},
			{Setting: "renewal.keep_removed", Value: "20h", At: "Machine.engine.pace.KeepRemoved", Default: "720h0m0s", Want: "20h0m0s"},
			{Setting: "assignments.accept", Value: "false", Alone: true, See: allows(`{"names":["a.example.com"]}`), Default: "true", Want: "false"},
			{Setting: "assignments.allow_paths", Value: "/srv/allowed", See: allows(`{"names":["a.example.com"],"deployments":[{"files":{"combined":"/srv/allowed/a.pem"}}]}`), Default: "false", Want: "true"},
			{Setting: "assignments.allow_commands[].command", YAML: `[{command: [/bin/allowed]}]`, See: allows(`{"names":["a.example.com"],"deployments":[{"files":{"combined":"DIR/a.pem"},"reload":["/bin/allowed"]}]}`), Default: "false", Want: "true"},
			{Setting: "assignments.allow_verify", Value: "192.0.2.7:443", See: allows(`{"names":["a.example.com"],"deployments":[{"files":{"combined":"DIR/a.pem"},"verify":{"address":"192.0.2.7:443"}}]}`), Default: "false", Want: "true"},
			{Setting: "metrics.listen", Value: "127.0.0.1:0", At: "Machine.reporter.cfg.Listen", Want: "127.0.0.1:0"},
			{Setting: "metrics.textfile", Value: "$DIR/other.prom", At: "Machine.reporter.cfg.TextFile", Want: "$DIR/other.prom"},
			{Setting: "metrics.textfile_interval", Value: "21s", At: "Machine.reporter.cfg.TextFileInterval", Default: "1m0s", Want: "21s"},
			{Setting: "revocation.interval", Value: "22h", At: "Machine.checks.config.Interval", Default: "6h0m0s", Want: "22h0m0s"},
			issuer("http", "acme.directory", "DirectoryURL", "https://ca.example.com/a", "https://ca.example.com/b"),
			issuer("http", "acme.email", "Contact", "[]", "[pki@example.com]"),
			{Setting: "issuers.<name>.acme.terms_agreed", YAML: `issuers: {a: {acme: {directory: "https://ca.example.com/a", terms_agreed: false}}}`, Refused: "expected true: read the authority's terms"},
			issuer("http", "acme.ca_file", "RootCAs:set", "false", "true"),
			issuer("http", "acme.preferred_chain", "PreferredChain", "", "Other Root"),
			issuer("alpn", "acme.challenge", "Solver:type", "acme.HTTP01", "acme.TLSALPN01"),
			issuer("http", "acme.eab.key_id", "EAB.KeyID", effects.Absent, "other-id"),
			issuer("http", "acme.eab.hmac_key", "EAB.HMACKey.text", effects.Absent, "b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI"),
			issuer("http", "acme.http_01.listen", "Solver.Listen", ":80", "127.0.0.1:8001"),
			issuer("webroot", "acme.http_01.webroot", "Solver.Path", effects.Absent, "/srv/www"),
			issuer("alpn", "acme.tls_alpn_01.listen", "Solver.Listen", "", "127.0.0.1:8002"),
			issuer("hook", "acme.dns_01.exec.command", "Solver.Command", "[/bin/hook]", "[/bin/other]"),
			issuer("hook", "acme.dns_01.exec.timeout", "Solver.Timeout", "1m0s", "9s"),
			issuer("hook", "acme.dns_01.propagation_wait", "Solver.PropagationWait", "0s", "11s"),
			issuer("update", "acme.dns_01.rfc2136.server", "Solver.Server", "ns1.example.com:53", "ns2.example.com:53"),
			issuer("update", "acme.dns_01.rfc2136.zone", "Solver.Zone", "", "example.com"),
			issuer("update", "acme.dns_01.rfc2136.tsig_key_name", "Solver.TSIG.Name", effects.Absent, "other-key"),
			issuer("update", "acme.dns_01.rfc2136.tsig_algorithm", "Solver.TSIG.Algorithm", effects.Absent, "hmac-sha512"),
			issuer("update", "acme.dns_01.rfc2136.tsig_secret", "Solver.TSIG.Secret.text", effects.Absent, "b3RoZXI="),
			issuer("update", "acme.dns_01.rfc2136.ttl", "Solver.TTL", "1m0s", "13s"),
			{Setting: "issuers.<name>.limits.orders_per_hour", At: "Machine.roll.local[1].Issuers[0].Limits.OrdersPerHour", Want: "3"},
			{Setting: "issuers.<name>.limits.burst", At: "Machine.roll.local[1].Issuers[0].Limits.Burst", Want: "5"},
			{Setting: "issuers.<name>.limits.concurrency", At: "Machine.roll.local[1].Issuers[0].Limits.Concurrency", Want: "7"},
			certificate("name", "Name", "one", "two"),
			certificate("names", "Names.DNS", "[one.example.com]", "[two.example.com]"),
			certificate("issuer", "Issuers[0].Name", "http", "alpn"),
			certificate("fallback_issuers", "Issuers[1].Name", effects.Absent, "hook"),
			certificate("key", "KeyAlgorithm", "ecdsa-p256", "rsa-3072"),
			certificate("key_policy", "ReuseKey", "false", "true"),
			certificate("profile", "Profile", "", "short"),
			certificate("lifetime", "Lifetime", "0s", "216h0m0s"),
			deployment("id", "ID", "1", "web"),
			file("certificate", "/srv/two/cert.pem"),
			file("chain", "/srv/two/chain.pem"),
			file("fullchain", "/srv/two/fullchain.pem"),
			file("key", "/srv/two/key.pem"),
			file("combined", "/srv/two/combined.pem"),
			file("directory", "/srv/three"),
			deployment("files.owner", "Target.access.owner", "", "4001"),
			deployment("files.group", "Target.access.group", "", "4002"),
			deployment("files.mode", "Target.access.mode", "0", "416"),
			deployment("files.key_mode", "Target.access.keyMode", "0", "256"),
			deployment("files.create_directories", "Target.createDirectories", "false", "true"),
			deployment("check", "Target.check.argv", "[/bin/check]", "[/bin/check two]"),
			deployment("check_timeout", "Target.check.timeout", "30s", "14s"),
			deployment("reload", "Target.reload.argv", "[/bin/reload]", "[/bin/reload two]"),
			deployment("reload_timeout", "Target.reload.timeout", "30s", "15s"),
			deployment("verify.address", "Target.probe.Address", "127.0.0.1:1", "127.0.0.1:2"),
			deployment("verify.server_name", "Target.probe.ServerName", "one.example.com", "sni.example.com"),
			deployment("verify.command", "Target.verifyCommand.argv", effects.Absent, "[/bin/verify]"),
			deployment("verify.patience", "Target.probe.Patience", "10s", "16s"),
		},
		Elsewhere: map[string]string{
			"certificates[].deployments[].files.windows_account": "agent/deploy/file.TestListOfANewKey",
		},
	}.Check(t)
}

// allows looks whether the host lets the centre define a certificate. DIR stands for
// each of the directories in which it may install files.
func allows(definition string) func(any) string {
	return func(p any) string {
		identity := &store.Identity{AgentID: "agent", NamePatterns: []string{"*.example.com"}}
		allowed := false
		for _, dir := range []string{"/etc/certctl/certs", "/srv/allowed"} {
			certificate := strings.ReplaceAll(definition, "DIR", dir)
			_, verdicts := of(p).roll.current().assigned([]wire.Assignment{{Name: "a", Revision: 1, Certificate: []byte(certificate)}}, nil, identity)
			allowed = allowed || verdicts[0].Certificate != nil
		}
		return strconv.FormatBool(allowed)
	}
}

// assembled is the agent of a configuration file.
func assembled(t *testing.T, configuration string) any {
	t.Setenv(cli.FileVariable, configuration)
	made, err := testca.NewServerTLS(t.TempDir())
	require.NoError(t, err)
	root, err := os.ReadFile(made.RootFile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(configuration), "roots.pem"), root, 0o600))
	a := &agentCommand{source: cli.Source{DefaultFile: config.DefaultFile}}
	s, report, err := a.load()
	require.NoError(t, err)
	log, level, err := cli.Logger(os.Stderr, s.Log.Level, s.Log.Format)
	require.NoError(t, err)
	state, err := openState(s, log)
	require.NoError(t, err)
	t.Cleanup(func() { state.close(log) })
	m, err := a.assemble(s, report, state, level, log)
	require.NoError(t, err)
	return &program{Machine: m, Level: level, Log: log}
}
