//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/shared/wire"
)

// assign defines a certificate for every host.
func (c *coordinator) assign(name string, definition section) {
	c.t.Helper()
	text, err := json.Marshal(definition)
	require.NoError(c.t, err)
	require.NoError(c.t, c.try(http.MethodPut, "/api/v1/assignments/"+name, resource.PutAssignment{Selector: "*", Certificate: text}, nil))
}

// awaitAssignment waits until a host has said what it made of an assignment.
func (c *coordinator) awaitAssignment(name, state string) resource.AssignmentHost {
	c.t.Helper()
	var host resource.AssignmentHost
	await(c.t, time.Minute, "the assignment "+name+" is "+state, func() error {
		var detail resource.AssignmentDetail
		if err := c.try(http.MethodGet, "/api/v1/assignments/"+name, nil, &detail); err != nil {
			return err
		}
		if len(detail.Hosts.Items) != 1 || detail.Hosts.Items[0].State != state {
			return fmt.Errorf("it stands at %+v", detail.Hosts)
		}
		host = detail.Hosts.Items[0]
		return nil
	})
	return host
}

// awaitOther waits until another certificate than the one with that serial is in
// service, and nothing is under way.
func (a *agent) awaitOther(name, serial string) control.Certificate {
	a.t.Helper()
	var now control.Certificate
	await(a.t, time.Minute, "another certificate is in service", func() (err error) {
		if now, err = a.certificate(name); err != nil {
			return err
		}
		if now.Serial == "" || now.Serial == serial || now.Phase != "idle" {
			return fmt.Errorf("%s has the serial number %q and is %s (%s): %s", name, now.Serial, now.State, now.Phase, now.LastError)
		}
		return nil
	})
	return now
}

// What the centre defines is managed by the host on its own: also when the centre
// is gone and the host starts anew. It can be changed, renewed, revoked and taken
// back; what the host does not allow it refuses, and says what would.
func TestAssignments(t *testing.T) {
	t.Parallel()
	c := startCoordinator(t, "CERTCTL_SYNC_INTERVAL=1s")
	home := t.TempDir()
	file := filepath.Join(home, "certs", "www.pem")
	a := newAgent(t, "the agent", section{"assignments": section{"allow_paths": []string{filepath.Join(home, "certs")}}})
	a.enroll(c, "**.example.com")
	a.startAndAwait()
	definition := func(name string) section {
		return section{"names": []string{name}, "deployments": []section{{"files": section{"combined": file, "create_directories": true}}}}
	}
	c.assign("www", definition("www.example.com"))
	c.awaitAssignment("www", "active")
	first := a.awaitOther("www", "")
	assert.Equal(t, control.SourceAssigned, first.Source)
	require.FileExists(t, file)

	// Neither the centre nor its own memory is needed.
	c.stop()
	a.kill()
	a.startAndAwait()
	again, err := a.certificate("www")
	require.NoError(t, err)
	assert.Equal(t, first.Serial, again.Serial)
	assert.Equal(t, wire.StateValid, again.State)
	c.start()
	c.awaitServing()

	// Changed.
	c.assign("www", definition("web.example.com"))
	second := a.awaitOther("www", first.Serial)
	assert.Equal(t, []string{"web.example.com"}, second.Names.Strings())
	a.awaitReported(c, "www", second.Serial, time.Minute)

	// Refused by the host's rules, with the line that would allow it.
	evil := definition("evil.example.com")
	command := []string{"sh", "-c", "touch " + filepath.Join(home, "owned")}
	evil["deployments"] = []section{{"files": section{"combined": filepath.Join(home, "elsewhere", "evil.pem"), "create_directories": true}, "reload": command}}
	c.assign("evil", evil)
	said := c.awaitAssignment("evil", "refused")
	assert.Contains(t, said.Detail, fmt.Sprintf(`add the line "- %s" below assignments.allow_paths`, filepath.Join(home, "elsewhere")))
	assert.Contains(t, said.Detail, `add the line "- command: [`)
	shown := a.call("list")
	assert.Contains(t, shown.stdout, "evil: refused: ")
	assert.Equal(t, control.ExitAttention, a.call("status").status)
	require.NoDirExists(t, filepath.Join(home, "elsewhere"))
	a.configure(section{"assignments": section{
		"allow_paths": []string{filepath.Join(home, "certs"), filepath.Join(home, "elsewhere")}, "allow_commands": []section{{"command": command}},
	}})
	require.Zero(t, a.call("reload").status)
	c.awaitAssignment("evil", "active")
	a.awaitOther("evil", "")
	require.FileExists(t, filepath.Join(home, "owned"))
	require.NoError(t, c.try(http.MethodDelete, "/api/v1/assignments/evil", nil, nil))
	await(t, time.Minute, "the host has told that it manages evil no more", func() error {
		rows, err := c.report(a.id)
		if _, reported := rows["evil"]; err == nil && reported {
			err = errors.New("it is still in the report")
		}
		return err
	})

	// A mass renewal, spread over a few seconds.
	var campaign resource.Renewals
	require.NoError(t, c.try(http.MethodPost, "/api/v1/renewals", resource.CreateRenewals{Selector: "*", OverSeconds: 3, Reason: "test"}, &campaign))
	third := a.awaitOther("www", second.Serial)
	await(t, time.Minute, "the mass renewal is done", func() error {
		err := c.try(http.MethodGet, "/api/v1/renewals/"+campaign.ID, nil, &campaign)
		if err == nil && campaign.State != "done" {
			err = fmt.Errorf("it is %s: %+v", campaign.State, campaign)
		}
		return err
	})
	assert.Equal(t, 1, campaign.Replaced)

	// Revoked: the built-in CA revokes it, the host replaces it.
	a.awaitReported(c, "www", third.Serial, time.Minute)
	var revoked resource.RevokedCertificate
	require.NoError(t, c.try(http.MethodPost, "/api/v1/revocations", resource.RevokeCertificate{Serial: third.Serial, Reason: "keyCompromise"}, &revoked))
	fourth := a.awaitOther("www", third.Serial)
	await(t, time.Minute, "the command is done", func() error {
		var list resource.Page[resource.Command]
		if err := c.try(http.MethodGet, "/api/v1/agents/"+a.id+"/commands", nil, &list); err != nil {
			return err
		}
		for _, command := range list.Items {
			if command.State != "done" {
				return fmt.Errorf("%+v", command)
			}
		}
		if len(list.Items) == 0 {
			return errors.New("there is no command")
		}
		return nil
	})

	// Taken back: not managed any more, and still there.
	before, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, c.try(http.MethodDelete, "/api/v1/assignments/www", nil, nil))
	await(t, time.Minute, "nothing is managed", func() error {
		status, err := a.tryStatus()
		if err == nil && (len(status.Certificates) > 0 || len(status.Assignments) > 0) {
			err = fmt.Errorf("there are %d certificates and %d assignments", len(status.Certificates), len(status.Assignments))
		}
		return err
	})
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, before, after)
	assert.NotEqual(t, third.Serial, fourth.Serial)
}
