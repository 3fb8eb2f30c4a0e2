package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/asyncpoll"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/daemon"
	"github.com/certctl/certctl/coordinator/issuers/issuerstest"
	"github.com/certctl/certctl/internal/effects"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/testca"
	"github.com/certctl/certctl/shared/cli"
)

// program is the coordinator as run puts it together.
type program struct {
	conf   daemon.Config
	daemon *daemon.Daemon
}

func of(part any) *program { return part.(*program) }

// Every setting has an effect: the coordinator is put together as "run" does it, with
// none of them, with all of them in the file, and with all of them that have a variable
// in the environment.
func TestEverySettingHasAnEffect(t *testing.T) {
	t.Cleanup(func() { asyncpoll.SetDefaultMaxWait(0) })
	authority, err := testca.NewServerTLS(t.TempDir())
	require.NoError(t, err)
	chain := authority.RootFile
	var base strings.Builder
	base.WriteString("issuers:\n")
	for _, kind := range []string{config.KindDigiCert, config.KindEntrust, config.KindGlobalSign, config.KindSectigo, config.KindVault} {
		fmt.Fprintf(&base, "  %s:\n%s", kind, issuerstest.Serve(t, kind, fakeca.Config{}).Settings("    "))
	}
	other := base.String() + // which ends with the section of the vault
		`    limits: {rate: 3, burst: 5, concurrency: 7, agent_orders: 11}
    poll_max_wait: 13m
    validity: 17h
    max_validity: 19h
    chain_file: ` + strconv.Quote(chain) + `
    fetch_issuers: true
`
	vault := func(setting, at, byDefault, want string) effects.Effect {
		return effects.Effect{Setting: "issuers.<name>." + setting, At: "conf.Issuers.issuers[vault]." + at, Default: byDefault, Want: want}
	}
	budget := func(kind string) string { return "conf.Issuers.issuers[" + kind + "].MaxWait" }
	effects.Program{
		Settings: &config.Settings{},
		Base:     base.String(),
		Other:    other,
		Assemble: assembled,
		Effects: []effects.Effect{
			{Setting: "data_dir", Base: "$DIR/data", Value: "$DIR/other", At: "daemon.directory.journal.config.Path", Want: "$DIR/other/journal.db"},
			{Setting: "node_id", Value: "other", At: "daemon.node.config.NodeID", Want: "other"},
			{Setting: "log.level", Value: "debug", See: func(p any) string {
				return strconv.FormatBool(of(p).conf.Log.Enabled(context.Background(), slog.LevelDebug))
			}, Default: "false", Want: "true"},
			{Setting: "log.format", Value: "text", At: "conf.Log.handler:type", Default: "slog.JSONHandler", Want: "slog.TextHandler"},
			{Setting: "server.listen", Base: "127.0.0.1:0", Value: "127.0.0.2:0", See: func(p any) string {
				host, _, _ := strings.Cut(of(p).daemon.Address().String(), ":")
				return host
			}, Default: "127.0.0.1", Want: "127.0.0.2"},
			{Setting: "server.names", Value: "other.example.com", See: func(p any) string {
				names, err := effects.Read(p, "daemon.front.certificate.names.DNS")
				return strconv.FormatBool(err == nil && strings.Contains(names, "other.example.com"))
			}, Default: "false", Want: "true"},
			{Setting: "server.url", Value: "https://url.example.com:9443", At: "daemon.url", Want: "https://url.example.com:9443"},
			{Setting: "ca.name", Value: "Other", At: "daemon.ca.config.Name", Default: "certctl", Want: "Other"},
			{Setting: "ca.seal_key", Value: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", At: "daemon.ca.given:set", Default: "false", Want: "true"},
			{Setting: "ca.leaf_lifetime", Value: "3d", At: "daemon.ca.config.LeafLifetime", Default: "720h0m0s", Want: "72h0m0s"},
			{Setting: "ca.crl_url", Value: "http://crl.example.com/ca", At: "daemon.ca.config.RevocationURL", Want: "http://crl.example.com/ca"},
			{Setting: "ca.identity_lifetime", Value: "4d", At: "daemon.ca.config.IdentityLifetime", Default: "720h0m0s", Want: "96h0m0s"},
			{Setting: "api.rate", Value: "33", At: "daemon.gate.tokens.rate", Default: "100", Want: "33"},
			{Setting: "api.burst", Value: "44", At: "daemon.gate.tokens.burst", Default: "200", Want: "44"},
			{Setting: "fleet.sync_interval", Value: "7s", At: "daemon.front.agents.interval", Default: "1m0s", Want: "7s"},
			{Setting: "fleet.sync_target_rate", Value: "77", At: "daemon.front.agents.rate", Default: "500", Want: "77"},
			{Setting: "fleet.max_in_flight", Value: "9", At: "daemon.front.syncs.slots", Default: "256", Want: "9"},
			{Setting: "journal.retention", Value: "5d", At: "daemon.directory.journal.config.MaxAge", Default: "2160h0m0s", Want: "120h0m0s"},
			{Setting: "journal.max_bytes", Value: "99000000", At: "daemon.directory.journal.config.MaxBytes", Default: "4294967296", Want: "99000000"},
			{Setting: "database.url", Value: "postgres://user@db.example.com/other", At: "daemon.database.config.URL.text", Default: effects.Absent, Want: "postgres://user@db.example.com/other"},
			{Setting: "database.max_conns", Value: "11", At: "daemon.database.config.MaxConns", Want: "11"},
			{Setting: "database.statement_timeout", Value: "12s", At: "daemon.database.config.StatementTimeout", Want: "12s"},
			{Setting: "database.retention", Value: "400d", At: "daemon.database.config.Retention", Want: "9600h0m0s"},
			{Setting: "cluster.listen", Base: "127.0.0.1:0", Value: "127.0.0.2:0", See: func(p any) string {
				address, err := effects.Read(p, "daemon.network.config.Listener.fd.laddr.IP")
				if err != nil {
					return err.Error()
				}
				return address
			}, Want: "[127 0 0 2]"},
			{Setting: "cluster.advertise", Value: "c9.example.com:9444", At: "daemon.network.config.Advertise", Want: "c9.example.com:9444"},
			{Setting: "cluster.join_token", Value: "nonsense", Refused: "not a join token"},
			{Setting: "cluster.election_timeout", Value: "3s", At: "daemon.node.config.ElectionTimeout", Default: "1s", Want: "3s"},
			{Setting: "cluster.stabilization", Value: "14s", At: "daemon.node.config.Stabilization", Default: "10s", Want: "14s"},
			{Setting: "cluster.min_quorum", Value: "5", At: "daemon.node.config.MinQuorum", Default: "3", Want: "5"},
			{Setting: "cluster.dead_server_after", Value: "15h", At: "daemon.node.config.DeadServerAfter", Default: "72h0m0s", Want: "15h0m0s"},
			{Setting: "backups.interval", Value: "16h", At: "daemon.backups.config.Interval", Default: "6h0m0s", Want: "16h0m0s"},
			{Setting: "backups.keep", Value: "17", At: "daemon.backups.config.Keep", Default: "8", Want: "17"},
			{Setting: "backups.directory", Value: "$DIR/copies", At: "daemon.backups.config.Dir", Want: "$DIR/copies"},
			{Setting: "orders.poll_max_wait_seconds", Value: "601", See: func(any) string { return asyncpoll.MaxWait(0).String() }, Default: "10m0s", Want: "10m1s"},
			{Setting: "orders.digicert_poll_max_wait_seconds", Value: "602", At: budget(config.KindDigiCert), Default: "0s", Want: "10m2s"},
			{Setting: "orders.entrust_poll_max_wait_seconds", Value: "603", At: budget(config.KindEntrust), Default: "0s", Want: "10m3s"},
			{Setting: "orders.globalsign_poll_max_wait_seconds", Value: "604", At: budget(config.KindGlobalSign), Default: "0s", Want: "10m4s"},
			{Setting: "orders.sectigo_poll_max_wait_seconds", Value: "605", At: budget(config.KindSectigo), Default: "0s", Want: "10m5s"},
			vault("limits.rate", "Limits.Rate", "2", "3"),
			vault("limits.burst", "Limits.Burst", "1", "5"),
			vault("limits.concurrency", "Limits.Concurrency", "4", "7"),
			vault("limits.agent_orders", "AgentOrders", "200", "11"),
			vault("poll_max_wait", "MaxWait", "0s", "13m0s"),
			vault("validity", "Connector.config.Validity", "0s", "17h0m0s"),
			vault("max_validity", "MaxValidity", "0s", "19h0m0s"),
			vault("chain_file", "Chain[0].Subject.CommonName", effects.Absent, "Root of a test server"),
			vault("fetch_issuers", "FetchIssuers", "false", "true"),
		},
		Elsewhere: map[string]string{
			"issuers.<name>.digicert.":   everySetting,
			"issuers.<name>.entrust.":    everySetting,
			"issuers.<name>.globalsign.": everySetting,
			"issuers.<name>.sectigo.":    everySetting,
			"issuers.<name>.vault.":      everySetting,
		},
	}.Check(t)
}

// everySetting holds the section of each kind of issuer against its connector.
const everySetting = "coordinator/issuers.TestEverySettingReachesItsConnector"

// assembled is the coordinator of a configuration file.
func assembled(t *testing.T, configuration string) any {
	t.Setenv(cli.FileVariable, configuration)
	c := &coordinatorCommand{source: cli.Source{DefaultFile: config.DefaultFile}}
	conf, err := c.load()
	require.NoError(t, err)
	d, err := daemon.New(t.Context(), conf)
	require.NoError(t, err)
	t.Cleanup(d.Close)
	return &program{conf: conf, daemon: d}
}
