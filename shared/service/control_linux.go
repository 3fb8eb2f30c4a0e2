package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/kardianos/service"

	"github.com/certctl/certctl/shared/durable"
)

// unitDir is where kardianos/service writes units: the directory for those of
// this host's administrator, which come before those of packages.
const unitDir = "/etc/systemd/system"

// systemctlPlatform is systemd, asked through systemctl.
type systemctlPlatform struct {
	def  Definition
	unit string
}

func newPlatform(def Definition) (platform, error) {
	if def.Unit == "" {
		return nil, fmt.Errorf("service %s: the text of its unit is needed", def.Name)
	}
	return &systemctlPlatform{def: def, unit: def.Name + ".service"}, nil
}

func (p *systemctlPlatform) present() error {
	// What sd_booted(3) looks at.
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return fmt.Errorf("systemd does not run this host, and no other service manager of Linux is supported: %s", byHand(p.def))
	}
	return nil
}

func (p *systemctlPlatform) permitted() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: services are for root to change: run it again with sudo", ErrNotPermitted)
	}
	return nil
}

func (p *systemctlPlatform) state(ctx context.Context) (State, error) {
	out, err := systemctl(ctx, "show", p.unit, "--property="+strings.Join(shown, ","))
	if err != nil {
		return State{}, err
	}
	state, err := parseShow(out)
	state.Name = p.def.Name
	return state, err
}

// shown are the properties of a unit that make its State.
var shown = []string{
	"LoadState", "ActiveState", "SubState", "UnitFileState", "FragmentPath", "MainPID", "StatusText",
	"ExecMainStatus", "NRestarts", "Result",
}

// parseShow reads the output of "systemctl show".
func parseShow(out string) (State, error) {
	values := make(map[string]string, len(shown))
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			values[key] = value
		}
	}
	number := func(key string) (int, error) {
		text := values[key]
		if text == "" { // units that are not loaded have none
			return 0, nil
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return 0, fmt.Errorf("systemctl show: %s=%q is not a number", key, text)
		}
		return n, nil
	}
	if values["LoadState"] == "" || values["ActiveState"] == "" {
		return State{}, errors.New("systemctl show: no LoadState or no ActiveState in its answer")
	}
	state := State{
		// A unit that was deleted while it runs is not-found and active.
		Installed:    values["LoadState"] != "not-found",
		StartsAtBoot: values["UnitFileState"] == "enabled",
		Running:      values["ActiveState"] == "active" || values["ActiveState"] == "reloading",
		Word:         fmt.Sprintf("%s (%s)", values["ActiveState"], values["SubState"]),
		Says:         values["StatusText"],
		Source:       values["FragmentPath"],
	}
	if result := values["Result"]; result != "" && result != "success" {
		state.Word += ", last result: " + result
	}
	var errs [3]error
	state.PID, errs[0] = number("MainPID")
	state.ExitStatus, errs[1] = number("ExecMainStatus")
	state.Restarts, errs[2] = number("NRestarts")
	return state, errors.Join(errs[:]...)
}

func (p *systemctlPlatform) install(ctx context.Context, commandLine []string, replace bool) error {
	if err := checkExecutable(commandLine[0]); err != nil {
		return err
	}
	for _, word := range commandLine {
		if err := checkVisible(word); err != nil {
			return err
		}
	}
	text, err := renderUnit(p.def.Unit, commandLine)
	if err != nil {
		return err
	}
	if p.def.ConfigDir != "" {
		if err := durable.MkdirAll(p.def.ConfigDir, 0o755); err != nil {
			return fmt.Errorf("the directory of the configuration: %w", err)
		}
	}
	path := filepath.Join(unitDir, p.unit)
	if replace {
		if previous, err := os.ReadFile(path); err == nil {
			return p.replace(ctx, path, previous, text)
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		// A unit of a package is there, and one of the administrator's own
		// comes before it.
	}
	s, err := p.kardianos(text)
	if err != nil {
		return err
	}
	if err := s.Install(); err != nil {
		// A unit that was written but not enabled would be in the way of the
		// next attempt.
		removed := os.Remove(path)
		_, reloaded := systemctl(ctx, "daemon-reload")
		if errors.Is(removed, os.ErrNotExist) {
			removed = nil
		}
		return errors.Join(fmt.Errorf("unit %s: %w", path, err), removed, reloaded)
	}
	return nil
}

// replace writes a unit anew. systemd goes on with the old one until it is told
// to look, and gets it back if it does not accept the new one.
func (p *systemctlPlatform) replace(ctx context.Context, path string, previous []byte, text string) error {
	if err := durable.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	_, err := systemctl(ctx, "daemon-reload")
	if err == nil {
		_, err = systemctl(ctx, "enable", p.unit)
	}
	if err != nil {
		return errors.Join(err, durable.WriteFile(path, previous, 0o644))
	}
	return nil
}

func (p *systemctlPlatform) uninstall(ctx context.Context) error {
	path := filepath.Join(unitDir, p.unit)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is no %s, so its unit is a package's: remove the package, or disable it with \"systemctl disable %s\"", path, p.unit)
	}
	s, err := p.kardianos("")
	if err != nil {
		return err
	}
	if err := s.Uninstall(); err != nil {
		return fmt.Errorf("unit %s: %w", path, err)
	}
	// Forgets how it ended, which is an error if there is nothing to forget.
	_, _ = systemctl(ctx, "reset-failed", p.unit)
	return nil
}

// kardianos is the library's view of the service, with text as its unit. The
// text has no braces that the library could take for its own, see unitWord.
func (p *systemctlPlatform) kardianos(text string) (service.Service, error) {
	return service.New(idle{}, &service.Config{
		Name: p.def.Name, DisplayName: p.def.DisplayName, Description: p.def.Description,
		Option: service.KeyValue{"SystemdScript": text},
	})
}

func (p *systemctlPlatform) start(ctx context.Context) error   { return p.act(ctx, "start") }
func (p *systemctlPlatform) restart(ctx context.Context) error { return p.act(ctx, "restart") }

func (p *systemctlPlatform) stop(ctx context.Context) error {
	_, err := systemctl(ctx, "stop", p.unit)
	return err
}

// act starts the service in one of two ways and, if it does not start, asks for
// its own words about the reason.
func (p *systemctlPlatform) act(ctx context.Context, verb string) error {
	_, err := systemctl(ctx, verb, p.unit)
	if err == nil {
		return nil
	}
	if state, stateErr := p.state(ctx); stateErr == nil && state.Says != "" {
		return fmt.Errorf("its last words are %q; systemd goes on trying; more in \"journalctl -u %s\"", state.Says, p.def.Name)
	}
	return fmt.Errorf("%w; more in \"journalctl -u %s\"", err, p.def.Name)
}

// systemctl runs one command of it and returns its output, or an error with
// what it said.
func systemctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := oneLine(stderr.String())
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if said == "" {
			return "", fmt.Errorf("systemctl %s: %w", args[0], err)
		}
		return "", fmt.Errorf("systemctl %s: %w: %s", args[0], err, said)
	}
	return stdout.String(), nil
}

// hidden are the places that ProtectHome= and PrivateTmp= of the units empty
// for the service.
var hidden = []string{"/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/"}

// checkVisible refuses a path that the service would not find. systemd would
// only say "No such file or directory" about a file that is there.
func checkVisible(path string) error {
	for _, dir := range hidden {
		if strings.HasPrefix(path, dir) {
			return fmt.Errorf("%s: what is below %s is hidden from the service: put the file elsewhere, such as /usr/local/bin for programs and /etc/certctl for configuration", path, strings.TrimSuffix(dir, "/"))
		}
	}
	return nil
}

// checkExecutable refuses a program that somebody other than root could
// replace: whoever can becomes root at its next start.
func checkExecutable(path string) error {
	for _, name := range []string{path, filepath.Dir(path)} {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: its owner is unknown", name)
		}
		if owner.Uid != 0 || info.Mode().Perm()&0o022 != 0 {
			return fmt.Errorf("%s belongs to user %d and has mode %04o, so others than root could change what the service runs: copy the program with \"sudo install %s /usr/local/bin/\" and run that", name, owner.Uid, info.Mode().Perm(), path)
		}
	}
	return nil
}
