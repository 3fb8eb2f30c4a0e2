package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/packaging/systemd"
	"github.com/certctl/certctl/shared/service"
)

// definition is the agent as the service manager knows it. A configuration
// file that somebody named is the service's too.
func (a *agentCommand) definition() service.Definition {
	def := service.Definition{
		Name:        "certctl-agent",
		DisplayName: "certctl agent",
		Description: "Keeps the TLS certificates of this host valid: obtains, deploys and renews them.",
		Arguments:   []string{"run"},
		ConfigDir:   filepath.Dir(config.DefaultFile),
		Unit:        systemd.Agent,
	}
	if file, named := a.source.File(); named {
		def.ConfigFile = file
	}
	return def
}

// serviceCommands are the verbs that install and control the agent's service.
func (a *agentCommand) serviceCommands() []*cobra.Command {
	return service.Commands(func() (service.Definition, error) { return a.definition(), nil })
}
