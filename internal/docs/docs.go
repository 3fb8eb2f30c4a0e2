// Package docs makes the reference pages that are generated from code.
package docs

import (
	agentconfig "github.com/certctl/certctl/agent/config"
	coordinatorconfig "github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/shared/settings"
)

const introduction = `certctl-agent and certctl-coordinator read their settings from a YAML file, then from the environment, then from flags;
a later source replaces the value of an earlier one. Unknown and misspelt keys are errors that name file, line and
column. ` + "`certctl-agent check-config`" + ` and ` + "`certctl-coordinator check-config`" + ` check a configuration without starting
anything, and say with ` + "`--explain`" + ` where each value came from.

Durations are written ` + "`90s`, `12h`, `30d`" + `. In the environment, lists are separated by commas. Each secret setting may
be read from a file instead: ` + "`<key>_file`" + ` in the YAML file, ` + "`<VARIABLE>_FILE`" + ` in the environment.

The agent reads ` + "`/etc/certctl/agent.yaml`" + `, the coordinator ` + "`/etc/certctl/coordinator.yaml`" + `; ` + "`--config`" + ` or
` + "`CERTCTL_CONFIG_FILE`" + ` names another file. The coordinator needs no file at all.`

// Configuration is docs/operator/configuration.md.
func Configuration() ([]byte, error) {
	agent, err := settings.Sections(&agentconfig.Settings{}, "certctl-agent", "Settings of the agent.")
	if err != nil {
		return nil, err
	}
	coordinator, err := settings.Sections(&coordinatorconfig.Settings{}, "certctl-coordinator", "Settings of the coordinator.")
	if err != nil {
		return nil, err
	}
	return settings.Markdown("Configuration", introduction, append(agent, coordinator...)...), nil
}
