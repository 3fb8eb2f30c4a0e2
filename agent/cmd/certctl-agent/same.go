package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/shared/settings"
)

// dialOwn is dial for what changes something: the agent that answers on the
// socket must be the one of this configuration. Another one, such as the
// service of this host while somebody tries a state directory of his own, would
// be enrolled, or renew, in its place.
func (a *agentCommand) dialOwn(ctx context.Context) (*control.Client, error) {
	client, err := a.dial(ctx)
	if err != nil {
		return nil, err
	}
	_, report, wrong := a.load()
	if wrong != nil && (report == nil || report.Origin(stateDirPath) == (settings.Origin{})) {
		// Nobody has said where the state is, and what is wrong is for the agent to tell.
		return client, nil
	}
	status, err := client.Status(ctx)
	if err == nil {
		err = otherAgent(report, status)
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// otherAgent is an error if the agent that answered keeps its state elsewhere
// than the configuration says.
func otherAgent(report *settings.Report, status *control.Status) error {
	here, there := report.Text(stateDirPath), status.Agent.StateDir
	if here == "" || there == "" || sameDir(here, there) {
		return nil
	}
	where := here
	if position := report.Position(stateDirPath); position != "" {
		where += " (" + position + ")"
	}
	file := ""
	if status.Agent.ConfigFile != "" {
		file = ", its configuration is " + status.Agent.ConfigFile
	}
	return fmt.Errorf("state_dir: it is %s here, and the agent that answers on %s keeps its state in %s%s: "+
		"nothing was asked of it. For that agent give its own configuration; for another one set control.socket too; "+
		"if state_dir was changed while the agent ran, restart it", where, report.Text("control.socket"), there, file)
}

const stateDirPath = "state_dir"

// sameDir also knows a directory by another path, if it may look.
func sameDir(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}
