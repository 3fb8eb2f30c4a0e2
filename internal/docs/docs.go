// Package docs makes the reference pages that are generated from code.
package docs

import (
	"slices"

	agentconfig "github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/coordinator/cli"
	coordinatorconfig "github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/shared/settings"
)

const introduction = `certctl-agent and certctl-coordinator read their settings from a YAML file, then from the environment, then from flags;
a later source replaces the value of an earlier one. Unknown and misspelt keys are errors that name file, line and
column. ` + "`certctl-agent check-config`" + ` and ` + "`certctl-coordinator check-config`" + ` check a configuration without starting
anything, and say with ` + "`--explain`" + ` where each value came from.

Durations are written ` + "`90s`, `12h`, `30d`" + `. In the environment, lists are separated by commas. Each secret setting may
be read from a file instead: ` + "`<key>_file`" + ` in the YAML file, ` + "`<VARIABLE>_FILE`" + ` in the environment.

A file has at most 12 MiB, 1,500,000 words and marks, 10,000 keys in one section and 32 levels of nesting. Ten thousand
certificates, each with files, check, reload, verify and fallback issuers, are half of that. Anchors, aliases, merge keys
and tags are not supported.

The agent reads ` + "`/etc/certctl/agent.yaml`" + `, the coordinator ` + "`/etc/certctl/coordinator.yaml`" + `; ` + "`--config`" + ` or
` + "`CERTCTL_CONFIG_FILE`" + ` names another file. The coordinator needs no file at all.
The systemd units read variables from ` + "`/etc/certctl/agent.env` and `/etc/certctl/coordinator.env`" + `, if they are there.
Every variable with its default is in ` + "`packaging/systemd/agent.env` and `packaging/systemd/coordinator.env`" + ` of the source tree.

Whoever can change the agent's configuration can run commands with its rights. Therefore a configuration file is refused,
at the start, at a reload and by ` + "`check-config`" + `, when somebody else than root and the user that the program runs as
owns it or may write it, or could replace it because its directory is open to writing without the sticky bit. A file with
a secret is refused when others may read it: give it the mode 0600, or leave it to root with 0640 and the group of the
program. A file with a wider mode will do where nobody else gets to it, because only root and the program's user may enter
one of the directories on the way (or root's group too, if it may not write the file); and one that others may read but not
write will do where it was mounted for the program: below ` + "`/run/secrets` or `/var/run/secrets`" + ` (Docker, Podman), below
` + "`$CREDENTIALS_DIRECTORY`" + ` (systemd), and on a file system in memory that is mounted read-only (Kubernetes). Everywhere else,
and in /tmp and /dev/shm too, it is refused. On Windows neither is checked: keep these files in a directory that only
administrators may write, with secrets in one that only they may read.`

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
	command, err := cli.Reference()
	if err != nil {
		return nil, err
	}
	page := settings.Markdown("Configuration", introduction, slices.Concat(agent, coordinator, command)...)
	return append(page, given()...), nil
}
