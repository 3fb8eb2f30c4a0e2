//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
)

// A running agent takes up its configuration when it is told to, by a signal or by
// the verb, and when the file changes; a wrong one is told in full and changes
// nothing. What leaves the configuration and comes back is not ordered anew.
func TestReload(t *testing.T) {
	t.Parallel()
	c := startCoordinator(t)
	www, api := certificate("www", "coordinator", "www.example"), certificate("api", "coordinator", "api.example")
	with := func(list ...section) section { return section{"certificates": list} }
	a := newAgent(t, "the agent", with(www))
	a.enroll(c, "*.example")
	a.startAndAwait()
	pid := a.status().Agent.PID
	first := a.awaitSettled(2 * time.Minute).Certificates[0]

	a.configure(with(www, api))
	a.signal(syscall.SIGHUP)
	a.awaitCertificates(first.Serial, "api", "www")

	// A wrong file, which its author tries to put into effect.
	good, err := os.ReadFile(a.config)
	require.NoError(t, err)
	bad := strings.Replace(string(good), `"200ms"`, `"now and then"`, 1)
	require.NoError(t, os.WriteFile(a.config, []byte(bad), 0o600))
	r := a.call("reload")
	assert.Equal(t, 1, r.status)
	assert.Regexp(t, `agent\.yaml:\d+:\d+: renewal\.tick_interval: .*now and then`, r.stderr)
	a.signal(syscall.SIGHUP)
	// The verbs need a file that can be read to know the socket.
	status := a.statusBy(good, func(s *control.Status) error {
		if !strings.Contains(strings.Join(s.Warnings, "\n"), "configuration on disk is not in effect") {
			return fmt.Errorf("no warning: %q", s.Warnings)
		}
		return nil
	})
	assert.Len(t, status.Certificates, 2, "the old one goes on")

	// Now only the file changes.
	a.configure(with(api))
	await(t, time.Minute, "the change of the file is in effect", func() error {
		s, err := a.tryStatus()
		switch {
		case err != nil:
			return err
		case len(s.Warnings) > 0:
			return fmt.Errorf("warnings %q", s.Warnings)
		case len(s.Removed) != 1 || s.Removed[0].Name != "www" || len(s.Certificates) != 1:
			return errors.New("www is not removed")
		}
		return nil
	})
	await(t, time.Minute, "www is gone from the inventory", func() error {
		rows, err := c.report(a.id)
		if _, there := rows["www"]; err == nil && there {
			err = errors.New("it is still there")
		}
		return err
	})
	assert.Contains(t, a.call("list").stdout, "kept until")

	a.configure(with(www, api))
	r = a.call("reload", "--output", "json")
	require.Zero(t, r.status, r.stderr)
	var done control.Reload
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &done))
	assert.Equal(t, control.Reload{Added: []string{"www"}, Unchanged: 1}, done)
	a.awaitCertificates(first.Serial, "api", "www")

	settings := with(www, api)
	settings["key_dir"] = a.home
	a.configure(settings)
	r = a.call("reload")
	assert.Equal(t, 1, r.status)
	assert.Contains(t, r.stderr, "key_dir")
	assert.Contains(t, r.stderr, "certctl-agent restart")
	assert.Equal(t, pid, a.status().Agent.PID, "one process did all this")
}

// awaitCertificates waits until these certificates, and no others, are in service,
// and www with that serial number.
func (a *agent) awaitCertificates(www string, names ...string) {
	a.t.Helper()
	await(a.t, 2*time.Minute, fmt.Sprintf("%v are in service", names), func() error {
		s, err := a.tryStatus()
		if err == nil {
			err = settled(s)
		}
		if err != nil {
			return err
		}
		var got []string
		for i := range s.Certificates {
			c := &s.Certificates[i]
			got = append(got, c.Name)
			if c.Name == "www" && c.Serial != www {
				a.t.Errorf("www has another serial number: %s instead of %s", c.Serial, www)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(names) {
			return fmt.Errorf("managed are %v", got)
		}
		return nil
	})
}

// statusBy asks with another configuration file than the agent's own.
func (a *agent) statusBy(config []byte, check func(*control.Status) error) *control.Status {
	a.t.Helper()
	file := a.config + ".good"
	require.NoError(a.t, os.WriteFile(file, config, 0o600))
	status := new(control.Status)
	await(a.t, time.Minute, "the agent says so", func() error {
		r := call(a.t, a.env, "certctl-agent", "status", "--output", "json", "--config", file)
		if err := json.Unmarshal([]byte(r.stdout), status); err != nil {
			return fmt.Errorf("status ended with %d: %s", r.status, r.stderr)
		}
		return check(status)
	})
	return status
}
