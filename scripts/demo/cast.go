package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/tlsutil"
)

// cast is the programs of the demonstration and how to talk to them.
type cast struct {
	*stage
	bin         string
	server      string // host:port of the coordinator
	web         *web
	slow        *slowCA
	coordinator *program
}

func (c *cast) program(name string) string { return filepath.Join(c.bin, name) }
func (c *cast) agentConfig() string        { return c.path("agent.yaml") }
func (c *cast) url() string                { return "https://" + c.server }

// environment is this process's without the settings of other certctl
// programs of the machine, and with the demonstration's own.
func (c *cast) environment(more ...string) []string {
	env := []string{"HOME=" + c.dir, "XDG_CONFIG_HOME=" + c.path("config")}
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "CERTCTL_") && name != "HOME" && name != "XDG_CONFIG_HOME" {
			env = append(env, entry)
		}
	}
	return append(env, more...)
}

// A program runs until it is stopped.
type program struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// start starts a program whose output goes to a file of the stage.
func (c *cast) start(logFile string, env []string, path string, args ...string) (*program, error) {
	log, err := os.OpenFile(c.path(logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// Not bound to the audience's context: stop ends it kindly.
	cmd := exec.CommandContext(context.Background(), path, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.dir, env, log, log
	cmd.SysProcAttr = apart()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &program{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // how it ended is seen by what it does no longer
	}()
	c.onClear(func() { _ = p.stop() })
	return p, nil
}

// stop ends the program, at first kindly.
func (p *program) stop() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not stop within 15 s and was killed", filepath.Base(p.cmd.Path))
	}
}

func (c *cast) startCoordinator(ctx context.Context) error {
	p, err := c.start("coordinator.log", c.environment(
		"CERTCTL_DATA_DIR="+c.path("coordinator"),
		"CERTCTL_SERVER_LISTEN="+c.server, "CERTCTL_CLUSTER_LISTEN=127.0.0.1:0",
		"CERTCTL_CA_LEAF_LIFETIME="+internalLifetime.String(),
		"CERTCTL_SYNC_INTERVAL=2s",
	), c.program("certctl-coordinator"), "run", "--config", c.coordinatorConfig())
	if err != nil {
		return err
	}
	c.coordinator = p
	root := c.path("coordinator", "root.pem")
	err = await(ctx, 30*time.Second, func(ctx context.Context) error {
		select {
		case <-p.done:
			return errors.New("the coordinator ended; see coordinator.log")
		default:
		}
		if _, err := os.Stat(root); err != nil {
			return err
		}
		_, err := tlsutil.ProbeServed(ctx, tlsutil.Probe{Address: c.server, Timeout: 2 * time.Second})
		return err
	})
	if err != nil {
		return fmt.Errorf("coordinator: %w", err)
	}
	c.saw("the coordinator answers at %s", c.url())
	return nil
}

// coordinatorConfig is a file with the account at the slow authority, and nothing else.
func (c *cast) coordinatorConfig() string {
	path := c.path("coordinator.yaml")
	_ = os.WriteFile(path, []byte(c.slow.settings()), 0o600) // a failure shows when it is read
	return path
}

func (c *cast) stopCoordinator(ctx context.Context) error {
	if err := c.coordinator.stop(); err != nil {
		return err
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", c.server)
	if err == nil {
		conn.Close()
		return fmt.Errorf("somebody still listens at %s", c.server)
	}
	return nil
}

// call runs a program to its end and returns what it printed.
func (c *cast) call(ctx context.Context, path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env = c.dir, c.environment()
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s %s: %w: %s", filepath.Base(path), strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.Bytes(), nil
}

// show runs a program and shows the audience the command and what it printed.
func (c *cast) show(ctx context.Context, where, path string, args ...string) error {
	out, err := c.call(ctx, path, args...)
	if _, is := errors.AsType[*exec.ExitError](err); err != nil && (!is || len(out) == 0) {
		return err
	}
	said := strings.Join(append([]string{filepath.Base(path)}, args...), " ")
	said = strings.ReplaceAll(said, " --config "+c.agentConfig(), "")
	fmt.Printf("\n       %s $ %s\n", where, said)
	for line := range strings.Lines(string(out)) {
		fmt.Printf("       | %s", line)
	}
	fmt.Println()
	return nil
}

func (c *cast) login(ctx context.Context) error {
	_, err := c.call(ctx, c.program("certctl"), "login", "--server", c.url(),
		"--token-file", c.path("coordinator", "admin.token"), "--ca-file", c.path("coordinator", "root.pem"))
	if err != nil {
		return err
	}
	c.saw("certctl is logged in as the administrator of the first start")
	return nil
}

// createToken returns the file of an enrolment token.
func (c *cast) createToken(ctx context.Context) (string, error) {
	out, err := c.call(ctx, c.program("certctl"), "token", "create", "--names", internalName+","+orderedName, "--ttl", "10m", "--output", "json")
	if err != nil {
		return "", err
	}
	var made struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(out, &made); err != nil || made.Token == "" {
		return "", fmt.Errorf("certctl token create printed no token: %q", out)
	}
	path := c.path("token")
	if err := os.WriteFile(path, []byte(made.Token), 0o600); err != nil {
		return "", err
	}
	c.saw("an enrolment token was made: good once, for 10 minutes, for the names %s and %s", internalName, orderedName)
	return path, nil
}

func (c *cast) writeAgentConfig(ca *pebble.Server) error {
	argv := func(words []string) string {
		text, _ := json.Marshal(words) // strings always marshal
		return string(text)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "state_dir: %s\nrenewal:\n  tick_interval: 1s\ncontrol:\n  socket: %s\n", c.path("agent"), c.path("agent.sock"))
	fmt.Fprintf(&b, "issuers:\n  pebble:\n    acme:\n      directory: %s\n      ca_file: %s\n      terms_agreed: true\n      http_01:\n        listen: 127.0.0.1:%d\n",
		ca.DirectoryURL, ca.RootFile, ca.HTTPPort)
	b.WriteString("certificates:\n")
	for i, issuer := range []struct{ certificate, issuer string }{{"internal", "coordinator"}, {"public", "pebble"}, {"ordered", "coordinator/" + issuerName}} {
		site := c.web.Sites[i]
		fmt.Fprintf(&b, "  - name: %s\n    names: [%s]\n    issuer: %s\n    deployments:\n      - id: web\n        files:\n          fullchain: %s\n          key: %s\n",
			issuer.certificate, site.name, issuer.issuer, site.certificate, site.key)
		if len(c.web.Check) > 0 {
			fmt.Fprintf(&b, "        check: %s\n", argv(c.web.Check))
		}
		fmt.Fprintf(&b, "        reload: %s\n        verify:\n          address: %s\n", argv(c.web.Reload), c.web.Address)
	}
	if err := os.WriteFile(c.agentConfig(), []byte(b.String()), 0o600); err != nil {
		return err
	}
	_, err := c.call(context.Background(), c.program("certctl-agent"), "check-config", "--config", c.agentConfig())
	return err
}

func (c *cast) enroll(ctx context.Context, token string) error {
	_, err := c.call(ctx, c.program("certctl-agent"), "enroll", "--config", c.agentConfig(), "--server", c.url(), "--token-file", token)
	if err != nil {
		return err
	}
	c.saw("the agent has its identity")
	return nil
}

func (c *cast) startAgent(ctx context.Context) error {
	if _, err := c.start("agent.log", c.environment(), c.program("certctl-agent"), "run", "--config", c.agentConfig()); err != nil {
		return err
	}
	if err := await(ctx, 20*time.Second, func(ctx context.Context) error {
		_, err := c.agentStatus(ctx)
		return err
	}); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	c.saw("the agent runs")
	return nil
}

// agentStatus is the part of "certctl-agent status --output json" that is looked at.
type agentStatus struct {
	Coordinator struct {
		State string `json:"state"`
	} `json:"coordinator"`
	SafeUntil    time.Time          `json:"safe_until"`
	Certificates []agentCertificate `json:"certificates"`
}

type agentCertificate struct {
	Name    string    `json:"name"`
	Serial  string    `json:"serial"`
	State   string    `json:"state"`
	RenewAt time.Time `json:"renew_at"`
}

func (c *cast) agentStatus(ctx context.Context) (*agentStatus, error) {
	out, err := c.call(ctx, c.program("certctl-agent"), "status", "--config", c.agentConfig(), "--output", "json")
	status := new(agentStatus)
	if jsonErr := json.Unmarshal(out, status); jsonErr != nil {
		return nil, errors.Join(err, jsonErr) // the exit status also says that something needs attention
	}
	return status, nil
}

// awaitServed waits until the web server serves a certificate of name that the
// agent says it has put into service, other than the one with the serial
// before, and returns its serial.
func (c *cast) awaitServed(ctx context.Context, certificate, name, before string, limit time.Duration) (serial string, err error) {
	err = await(ctx, limit, func(ctx context.Context) error {
		chain, err := tlsutil.ProbeServed(ctx, tlsutil.Probe{Address: c.web.Address, ServerName: name, Timeout: 2 * time.Second})
		if err != nil {
			return err
		}
		leaf := chain[0]
		serial = pki.SerialHex(leaf)
		if serial == before {
			return fmt.Errorf("%s still serves %s", c.web.Kind, serial)
		}
		if err := leaf.VerifyHostname(name); err != nil {
			return err
		}
		if now := time.Now(); now.After(leaf.NotAfter) {
			return fmt.Errorf("%s serves a certificate that expired at %s", c.web.Kind, leaf.NotAfter)
		}
		status, err := c.agentStatus(ctx)
		if err != nil {
			return err
		}
		for _, known := range status.Certificates {
			if known.Name == certificate && known.Serial == serial {
				return nil
			}
		}
		return fmt.Errorf("%s serves %s, which is not what the agent has put into service", c.web.Kind, serial)
	})
	if err != nil {
		return "", fmt.Errorf("a new certificate for %s: %w", name, err)
	}
	return serial, nil
}

// agentCertificate is what the agent says about one of its certificates.
func (c *cast) agentCertificate(ctx context.Context, name string) (*agentCertificate, error) {
	status, err := c.agentStatus(ctx)
	if err != nil {
		return nil, err
	}
	for i := range status.Certificates {
		if status.Certificates[i].Name == name {
			return &status.Certificates[i], nil
		}
	}
	return nil, fmt.Errorf("the agent does not know a certificate %s", name)
}

// awaitRenewalNear waits until a certificate is about to be renewed.
func (c *cast) awaitRenewalNear(ctx context.Context, certificate string, near, limit time.Duration) error {
	return await(ctx, limit, func(ctx context.Context) error {
		now, err := c.agentCertificate(ctx, certificate)
		if err != nil {
			return err
		}
		left := time.Until(now.RenewAt)
		if now.State != "valid" || left < near/4 || left > near {
			return fmt.Errorf("%s is %s and is renewed in %v", certificate, now.State, left.Round(time.Second))
		}
		return nil
	})
}

// awaitReport waits until the coordinator reports the serial that the agent has
// in service, other than the serial before, and returns it. It need not be the
// one that was seen last: lifetimes are short, and the next renewal may be over.
func (c *cast) awaitReport(ctx context.Context, certificate, before string, limit time.Duration) (serial string, err error) {
	err = await(ctx, limit, func(ctx context.Context) error {
		host, err := c.agentCertificate(ctx, certificate)
		if err != nil {
			return err
		}
		out, err := c.call(ctx, c.program("certctl"), "certificates", "list", "--output", "json")
		if err != nil {
			return err
		}
		var list struct {
			Items []struct {
				Name   string `json:"name"`
				Serial string `json:"serial"`
			} `json:"items"`
		}
		if err := json.Unmarshal(out, &list); err != nil {
			return err
		}
		for _, row := range list.Items {
			if row.Name == certificate && row.Serial == host.Serial && row.Serial != before {
				serial = row.Serial
				return nil
			}
		}
		return fmt.Errorf("no row of %s with serial %s: %s", certificate, host.Serial, out)
	})
	if err != nil {
		return "", fmt.Errorf("the coordinator's report: %w", err)
	}
	return serial, nil
}

// awaitFact waits until the coordinator's journal has the renewal that put a
// serial into service.
func (c *cast) awaitFact(ctx context.Context, serial string, limit time.Duration) error {
	err := await(ctx, limit, func(ctx context.Context) error {
		out, err := c.call(ctx, c.program("certctl"), "audit", "list", "--scope", "all", "--kind", "certificate.renewed", "--output", "json")
		if err == nil && !bytes.Contains(out, []byte(serial)) {
			err = fmt.Errorf("no renewal of %s in: %s", serial, out)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("the coordinator's journal: %w", err)
	}
	return nil
}

func (c *cast) awaitCutOff(ctx context.Context, limit time.Duration) error {
	return await(ctx, limit, func(ctx context.Context) error {
		status, err := c.agentStatus(ctx)
		if err != nil {
			return err
		}
		if status.Coordinator.State != "cut_off" || status.SafeUntil.IsZero() {
			return fmt.Errorf("the agent says that it is %s, safe until %s", status.Coordinator.State, status.SafeUntil)
		}
		return nil
	})
}

// linger leaves everything running until Ctrl-C.
func (c *cast) linger(ctx context.Context) error {
	fmt.Printf(`
Everything goes on running. From another terminal:

  curl -vk --resolve %[1]s:%[2]s:127.0.0.1 https://%[1]s:%[2]s/ 2>&1 | grep -A5 'Server certificate'
  %[3]s status --config %[4]s
  XDG_CONFIG_HOME=%[5]s %[6]s certificates list

For another order that waits for you, renew the certificate and approve it at %[7]s

  %[3]s renew ordered --wait 0s --config %[4]s
  XDG_CONFIG_HOME=%[5]s %[6]s orders list
  XDG_CONFIG_HOME=%[5]s %[6]s orders retry ORDER    (once it is approved, not to wait for the next question)
  XDG_CONFIG_HOME=%[5]s %[6]s issuers list

Ctrl-C stops everything and leaves nothing behind.
`, publicName, port(c.web.Address), c.program("certctl-agent"), c.agentConfig(), c.path("config"), c.program("certctl"), c.slow.page)
	<-ctx.Done()
	return ctx.Err()
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}
