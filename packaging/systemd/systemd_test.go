package systemd

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// settings are the lines of a unit by section and key.
func settings(t *testing.T, unit string) map[string][]string {
	t.Helper()
	values := make(map[string][]string)
	section := ""
	for number, line := range strings.Split(strings.TrimSuffix(unit, "\n"), "\n") {
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
		default:
			key, value, ok := strings.Cut(line, "=")
			require.True(t, ok, "line %d: %s", number+1, line)
			require.NotEmpty(t, section)
			values[section+"."+key] = append(values[section+"."+key], value)
		}
	}
	return values
}

// What the programs rely on. That systemd accepts the units, and that the
// services can do their work in them, is seen by scripts/test-systemd.sh.
func TestUnits(t *testing.T) {
	for name, unit := range map[string]string{"agent": Agent, "coordinator": Coordinator} {
		t.Run(name, func(t *testing.T) {
			got := settings(t, unit)
			for key, want := range map[string]string{
				"Unit.StartLimitIntervalSec":    "0", // never given up on
				"Service.Type":                  "notify",
				"Service.Restart":               "always",
				"Service.RestartSec":            "2",
				"Service.WatchdogSec":           "60s",
				"Service.ExecStart":             "/usr/bin/certctl-" + name + " run",
				"Service.ExecReload":            "/bin/kill -HUP $MAINPID",
				"Service.EnvironmentFile":       "-/etc/certctl/" + name + ".env",
				"Service.StateDirectory":        "certctl-" + name,
				"Service.StateDirectoryMode":    "0700",
				"Service.RuntimeDirectory":      "certctl-" + name,
				"Service.UMask":                 "0077",
				"Service.NoNewPrivileges":       "yes",
				"Service.ProtectSystem":         "strict",
				"Service.ProtectHome":           "yes",
				"Service.SystemCallErrorNumber": "EPERM",
				"Install.WantedBy":              "multi-user.target",
			} {
				assert.Equal(t, []string{want}, got[key], key)
			}
			assert.NotContains(t, got, "Service.ConfigurationDirectory", "systemd would give it to the coordinator's user, and the agent's file is in it")
			assert.NotContains(t, unit, "{{", "the installer's library would take it for its own")
		})
	}
}

func TestOnlyTheAgentIsRoot(t *testing.T) {
	assert.NotContains(t, settings(t, Agent), "Service.User")
	coordinator := settings(t, Coordinator)
	assert.Equal(t, []string{"yes"}, coordinator["Service.DynamicUser"])
	assert.Equal(t, []string{""}, coordinator["Service.CapabilityBoundingSet"])
}
