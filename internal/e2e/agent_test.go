//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/shared/wire"
)

// section is a mapping of a configuration file. JSON, as which it is written,
// is YAML too.
type section map[string]any

// agent is an agent with a state directory of its own.
type agent struct {
	*daemon
	home   string
	state  string
	config string
	env    []string
	id     string // once it is enrolled
}

// newAgent makes an agent that does not run yet. settings are added to a
// configuration that names its directories and looks for work often.
func newAgent(t testing.TB, name string, settings section) *agent {
	t.Helper()
	home := t.TempDir()
	a := &agent{home: home, state: filepath.Join(home, "state"), config: filepath.Join(home, "agent.yaml"), env: environment(home)}
	a.daemon = newDaemon(t, name, "certctl-agent", a.env, "run", "--config", a.config)
	a.configure(settings)
	return a
}

// configure writes the configuration file.
func (a *agent) configure(settings section) {
	a.t.Helper()
	whole := section{
		"state_dir": a.state,
		"control":   section{"socket": filepath.Join(a.home, "a.sock")},
		"renewal":   section{"tick_interval": "200ms"},
	}
	for key, value := range settings {
		whole[key] = value
	}
	text, err := json.MarshalIndent(whole, "", "  ")
	require.NoError(a.t, err)
	require.NoError(a.t, os.WriteFile(a.config, text, 0o600))
}

// acmeIssuer is the section of an issuer at Pebble.
func acmeIssuer(ca *pebble.Server) section {
	return section{"acme": section{
		"directory": ca.DirectoryURL, "ca_file": ca.RootFile, "terms_agreed": true,
		"http_01": section{"listen": fmt.Sprintf("127.0.0.1:%d", ca.HTTPPort)},
	}}
}

// certificate is the section of a certificate with one name.
func certificate(name, issuer, dnsName string, deployments ...section) section {
	c := section{"name": name, "names": []string{dnsName}, "issuer": issuer}
	if len(deployments) > 0 {
		c["deployments"] = deployments
	}
	return c
}

// call runs a verb of the agent's own program with its configuration.
func (a *agent) call(args ...string) result {
	a.t.Helper()
	return run(a.t, command(a.env, a.path, append(args, "--config", a.config)...))
}

// enrollWith enrols the agent at a coordinator, through any URL of it.
func (a *agent) enrollWith(server, token string, more ...string) result {
	a.t.Helper()
	file := filepath.Join(a.home, "token")
	require.NoError(a.t, os.WriteFile(file, []byte(token+"\n"), 0o600))
	return a.call(append([]string{"enroll", "--server", server, "--token-file", file, "--output", "json"}, more...)...)
}

// enrolled takes note of an enrolment that has to be a success.
func (a *agent) enrolled(r result) {
	a.t.Helper()
	require.Zero(a.t, r.status, "enroll: %s", r.stderr)
	var done control.Enrollment
	require.NoError(a.t, json.Unmarshal([]byte(r.stdout), &done))
	require.NotEmpty(a.t, done.AgentID)
	a.id = done.AgentID
}

// enroll enrols the agent with a new token for the names.
func (a *agent) enroll(c *coordinator, patterns ...string) {
	a.t.Helper()
	a.enrolled(a.enrollWith(c.url(), c.newToken(patterns...).Token))
}

// startAndAwait starts the agent and waits until it answers.
func (a *agent) startAndAwait() {
	a.t.Helper()
	a.start()
	a.awaitReady(2*time.Minute, func() error {
		_, err := a.tryStatus()
		return err
	})
}

// tryStatus asks the agent how it is, by the verb that people use.
func (a *agent) tryStatus() (*control.Status, error) {
	r := a.call("status", "--output", "json")
	status := new(control.Status)
	if err := json.Unmarshal([]byte(r.stdout), status); err != nil {
		return nil, fmt.Errorf("status ended with %d: %s", r.status, r.stderr)
	}
	return status, nil
}

func (a *agent) status() *control.Status {
	a.t.Helper()
	status, err := a.tryStatus()
	require.NoError(a.t, err)
	return status
}

// certificate is one managed certificate as the agent knows it.
func (a *agent) certificate(name string) (control.Certificate, error) {
	status, err := a.tryStatus()
	if err != nil {
		return control.Certificate{}, err
	}
	for i := range status.Certificates {
		if status.Certificates[i].Name == name {
			return status.Certificates[i], nil
		}
	}
	return control.Certificate{}, fmt.Errorf("the agent knows no certificate %q", name)
}

// awaitSettled waits until every certificate is valid and nothing is under way,
// and returns the status that says so.
func (a *agent) awaitSettled(limit time.Duration) *control.Status {
	a.t.Helper()
	var status *control.Status
	await(a.t, limit, a.name+" has all its certificates", func() (err error) {
		if status, err = a.tryStatus(); err != nil {
			return err
		}
		return settled(status)
	})
	return status
}

func settled(status *control.Status) error {
	for i := range status.Certificates {
		c := &status.Certificates[i]
		if c.State != wire.StateValid || c.Phase != "idle" || c.Fingerprint == "" {
			return fmt.Errorf("%s is %s (%s), attempt %d: %s", c.Name, c.State, c.Phase, c.Attempt, c.LastError)
		}
		for _, d := range c.Deployments {
			if d.Fingerprint != c.Fingerprint {
				return fmt.Errorf("%s is not in service at %s", c.Name, d.ID)
			}
		}
	}
	return nil
}

// awaitReported waits until the coordinator knows the serial number of a
// certificate that the agent has in service.
func (a *agent) awaitReported(c *coordinator, name, serial string, limit time.Duration) {
	a.t.Helper()
	await(a.t, limit, "the report has the new certificate", func() error {
		rows, err := c.report(a.id)
		if err != nil {
			return err
		}
		if rows[name].Serial != serial {
			return fmt.Errorf("the report has the serial number %q of %s, not %q", rows[name].Serial, name, serial)
		}
		return nil
	})
}
