//go:build linux

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/internal/testca"
)

// runbooks are where the pages are, seen from this package.
const runbooks = "../../docs/operator/runbooks/"

// A step is one command of a page, and where it is given.
type step struct {
	machine string
	command string
	prints  []string // parts of what it prints
	line    int
}

var fence = regexp.MustCompile("^```sh (\\S+)$")

// stepsOf reads the commands of a page in order.
func stepsOf(t *testing.T, page string) (steps []step) {
	t.Helper()
	text, err := os.ReadFile(runbooks + page)
	require.NoError(t, err)
	machine := ""
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case fence.MatchString(line):
			machine = fence.FindStringSubmatch(line)[1]
		case strings.HasPrefix(line, "```"):
			require.NotEmpty(t, machine, "%s:%d: say on which machine", page, i+1)
			machine = ""
		case machine == "":
		case strings.HasPrefix(line, "# → "):
			require.NotEmpty(t, steps)
			last := &steps[len(steps)-1]
			last.prints = append(last.prints, strings.TrimPrefix(line, "# → "))
		default:
			steps = append(steps, step{machine: machine, command: line, line: i + 1})
		}
	}
	require.NotEmpty(t, steps)
	return steps
}

// site is the machines of a page. They share a working directory, as if files were
// carried from one to the other, and name each other by node.
type site struct {
	t        *testing.T
	dir      string
	machines map[string]*coordinator
	admin    *operator
}

func newSite(t *testing.T) *site {
	return &site{t: t, dir: t.TempDir(), machines: map[string]*coordinator{}, admin: newOperator(t)}
}

// machine is a machine with an empty data directory, that belongs to a node of
// this name as soon as there is one.
func (s *site) machine(name string) *coordinator {
	s.t.Helper()
	if c := s.machines[name]; c != nil {
		return c
	}
	port, err := testca.Port()
	require.NoError(s.t, err)
	c := newCoordinator(s.t, "CERTCTL_NODE_ID="+name, "CERTCTL_CLUSTER_LISTEN="+net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		"CERTCTL_CLUSTER_STABILIZATION=1s")
	c.name = name
	c.env = append(c.env, "CERTCTL_CONFIG_FILE="+filepath.Join(c.home, "coordinator.yaml"))
	s.machines[name] = c
	return c
}

// startOn starts a machine's coordinator and waits until it serves.
func (s *site) startOn(name string) {
	s.t.Helper()
	c := s.machine(name)
	c.start()
	c.awaitReady(2*time.Minute, func() error {
		c.http = nil
		if _, err := os.Stat(filepath.Join(c.data, "admin.token")); err != nil {
			// One that has joined; it is ready when it can tell whose the token is.
			return s.asks(name)
		}
		return c.connect()
	})
}

// asks asks a coordinator whether it is ready, without being anybody.
func (s *site) asks(name string) error {
	c := s.machine(name)
	root, err := os.ReadFile(filepath.Join(c.data, "root.pem"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(root)
	c.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, DisableKeepAlives: true,
	}}
	return c.try(http.MethodGet, "/readyz", nil, nil)
}

// do gives one command as it stands on the page, but for the names that a page
// can only give as examples.
func (s *site) do(st step) {
	s.t.Helper()
	command, env := st.command, s.admin.env
	if st.machine != "admin" {
		c := s.machine(st.machine)
		env = c.env
		command = strings.ReplaceAll(command, "/var/lib/certctl-coordinator", c.data)
		command = strings.ReplaceAll(command, "https://"+st.machine+".example.com:8443", c.url())
		// These two need a service manager, for which the test stands in.
		switch command {
		case "certctl-coordinator start":
			s.startOn(st.machine)
			return
		case "certctl-coordinator stop":
			c.stop()
			return
		}
	}
	env = append(env[:len(env):len(env)], "PATH="+binDir+string(os.PathListSeparator)+os.Getenv("PATH"))
	shell := exec.Command("/bin/sh", "-c", command)
	shell.Env, shell.Dir, shell.SysProcAttr = env, s.dir, attributes()
	r := run(s.t, shell)
	require.Zero(s.t, r.status, "line %d: %s\n%s%s", st.line, st.command, r.stdout, r.stderr)
	for _, part := range st.prints {
		assert.Contains(s.t, spaced(r.stdout), spaced(part), "line %d: %s", st.line, st.command)
	}
}

// spaced has one space where there are several: columns depend on their content.
func spaced(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return strings.Join(lines, "\n")
}

// found starts the first node, and logs the administrator in.
func (s *site) found(name string) *coordinator {
	s.t.Helper()
	s.startOn(name)
	c := s.machine(name)
	s.admin.does("login", "--server", c.url(), "--token-file", filepath.Join(c.data, "admin.token"), "--ca-file", filepath.Join(c.data, "root.pem"))
	return c
}

// join lets a node join by its configuration alone.
func (s *site) join(name string) {
	s.t.Helper()
	token := strings.TrimSpace(s.admin.does("cluster", "join-token", "create", "--quiet"))
	c := s.machine(name)
	c.env = append(c.env, "CERTCTL_CLUSTER_JOIN_TOKEN="+token)
	s.startOn(name)
}

func (s *site) tokens() (ids []string) {
	s.t.Helper()
	var list resource.Page[resource.EnrollmentToken]
	s.admin.reads(&list, "token", "list")
	for _, token := range list.Items {
		ids = append(ids, token.ID)
	}
	return ids
}

func (s *site) newToken() string {
	s.t.Helper()
	var made resource.CreatedEnrollmentToken
	s.admin.reads(&made, "token", "create", "--names", "*.example", "--ttl", "1h")
	return made.ID
}

// TestTheRunbookOnALostMajority follows the page word for word: of three real
// coordinators two are killed and their directories are deleted.
func TestTheRunbookOnALostMajority(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c1 := s.found("c1")
	s.join("c2")
	s.join("c3")
	s.admin.does("cluster", "health", "--watch", "--interval", "1s")
	var before []string
	for range 3 {
		before = append(before, s.newToken())
	}
	for _, name := range []string{"c2", "c3"} {
		s.machine(name).kill()
		require.NoError(t, os.RemoveAll(s.machine(name).data))
	}
	for _, st := range stepsOf(t, "quorum-loss.md") {
		s.do(st)
	}
	assert.ElementsMatch(t, before, s.tokens(), "nothing that was acknowledged is lost")
	var members resource.Members
	s.admin.reads(&members, "cluster", "members")
	var ids []string
	for _, member := range members.Items {
		ids = append(ids, member.ID)
		assert.True(t, member.Voter, member.ID)
	}
	assert.ElementsMatch(t, []string{"c1", "c4", "c5"}, ids)
	kept, err := filepath.Glob(filepath.Join(c1.data, "raft.before-recovery-*"))
	require.NoError(t, err)
	assert.Empty(t, kept, "the page ends with the removal of the old state")

	// It is a cluster like any other: without its leader it goes on.
	after := s.newToken()
	s.admin.does("login", "--server", s.machine("c4").url(), "--token-file", filepath.Join(c1.data, "admin.token"), "--ca-file", filepath.Join(c1.data, "root.pem"))
	c1.kill()
	await(t, 2*time.Minute, "the others go on", func() error {
		r := s.admin.call("token", "list", "--consistent")
		if r.status != 0 {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	assert.ElementsMatch(t, append(before, after), s.tokens())
}

// TestTheRunbookOnRestoring follows the page word for word: first a live cluster
// is set back, then all of it is lost but a snapshot and the seal key.
func TestTheRunbookOnRestoring(t *testing.T) {
	t.Parallel()
	steps := stepsOf(t, "restore.md")
	live := newSite(t)
	c := live.found("c7")
	live.join("c8")
	live.join("c9")
	live.admin.does("cluster", "health", "--watch", "--interval", "1s")
	// Whichever node is asked.
	live.admin.does("login", "--server", live.machine("c9").url(), "--token-file", filepath.Join(c.data, "admin.token"), "--ca-file", filepath.Join(c.data, "root.pem"))
	var kept []string
	for range 3 {
		kept = append(kept, live.newToken())
	}
	live.admin.does("snapshot", "save", filepath.Join(live.dir, "monday.snapshot"))
	live.newToken()
	require.NoError(t, os.WriteFile(filepath.Join(live.dir, "passphrase.txt"), []byte("correct horse battery staple\n"), 0o600))
	for _, st := range steps {
		if st.machine == "admin" {
			live.do(st)
		}
	}
	assert.ElementsMatch(t, kept, live.tokens(), "what was made after the snapshot is gone")
	clusterID := clusterOf(t, live.admin)

	fresh := newSite(t)
	for from, to := range map[string]string{
		filepath.Join(live.dir, "monday.snapshot"): "monday.snapshot", filepath.Join(c.data, "seal.key"): "seal.key",
	} {
		content, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(fresh.dir, to), content, 0o600))
	}
	for _, lost := range live.machines {
		lost.kill()
		require.NoError(t, os.RemoveAll(lost.data))
	}
	for _, st := range steps {
		if st.machine == "c1" {
			fresh.do(st)
		}
	}
	fresh.admin.env = fresh.machine("c1").env // that is where the page has logged in
	assert.ElementsMatch(t, kept, fresh.tokens())
	assert.Equal(t, clusterID, clusterOf(t, fresh.admin))
	// Others join as they join any cluster.
	fresh.join("c2")
	fresh.join("c3")
	fresh.admin.does("cluster", "health", "--watch", "--interval", "1s")
}

func clusterOf(t *testing.T, o *operator) string {
	t.Helper()
	var ca resource.CA
	o.reads(&ca, "ca", "show")
	return ca.ClusterID
}
