package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kardianos/service"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"

	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/durable"
)

const (
	// pollEvery is between two looks at a service that starts or stops.
	pollEvery = 200 * time.Millisecond
	// settle is how long a service must run before it counts as started: it
	// reports Running first and reads its configuration then.
	settle = 3 * time.Second
)

// scm is the Service Control Manager of Windows.
type scm struct{ def Definition }

func newPlatform(def Definition) (platform, error) { return &scm{def: def}, nil }

func (p *scm) present() error { return nil }

// permitted is a question to the service manager itself: being a member of
// Administrators is not enough in a prompt that is not elevated.
func (p *scm) permitted() error {
	manager, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_ALL_ACCESS)
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return fmt.Errorf("%w: services are for administrators to change: run it again in a prompt that was opened with \"Run as administrator\"", ErrNotPermitted)
	}
	if err != nil {
		return fmt.Errorf("service manager of Windows: %w", err)
	}
	return windows.CloseServiceHandle(manager)
}

// open hands the service to use. Everybody may look (access as in
// windows.SERVICE_QUERY_STATUS), so it asks for no more than it needs.
func (p *scm) open(access uint32, use func(*mgr.Service) error) error {
	manager, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return fmt.Errorf("service manager of Windows: %w", err)
	}
	defer func() { _ = windows.CloseServiceHandle(manager) }()
	name, err := windows.UTF16PtrFromString(p.def.Name)
	if err != nil {
		return err
	}
	handle, err := windows.OpenService(manager, name, access)
	if err != nil {
		return err
	}
	s := &mgr.Service{Name: p.def.Name, Handle: handle}
	defer s.Close()
	return use(s)
}

func (p *scm) state(context.Context) (State, error) {
	state := State{Name: p.def.Name, Installed: true}
	err := p.open(windows.SERVICE_QUERY_STATUS|windows.SERVICE_QUERY_CONFIG, func(s *mgr.Service) error {
		status, err := s.Query()
		if err != nil {
			return err
		}
		config, err := queryConfig(s)
		if err != nil {
			return err
		}
		state.StartsAtBoot = config.startType == mgr.StartAutomatic
		state.Running = status.State == svc.Running
		state.Word = stateWord(status.State)
		state.PID = int(status.ProcessId)
		state.ExitStatus = exitStatus(status)
		state.Source = config.commandLine
		return nil
	})
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return State{Name: p.def.Name, Word: "not installed"}, nil
	}
	return state, err
}

func exitStatus(status svc.Status) int {
	if windows.Errno(status.Win32ExitCode) == windows.ERROR_SERVICE_SPECIFIC_ERROR {
		return int(status.ServiceSpecificExitCode)
	}
	// A service that was never started is not one that failed.
	if windows.Errno(status.Win32ExitCode) == windows.ERROR_SERVICE_NEVER_STARTED {
		return 0
	}
	return int(status.Win32ExitCode)
}

func stateWord(state svc.State) string {
	switch state {
	case svc.Stopped:
		return "stopped"
	case svc.StartPending:
		return "starting"
	case svc.StopPending:
		return "stopping"
	case svc.Running:
		return "running"
	case svc.ContinuePending, svc.PausePending, svc.Paused:
		return "paused"
	}
	return fmt.Sprintf("state %d", state)
}

func (p *scm) install(_ context.Context, commandLine []string, replace bool) error {
	commandLine = append(commandLine, "--"+serviceFlag)
	if p.def.ConfigDir != "" {
		// The state is in it as well, and users may make directories where it is.
		if err := durable.EnsurePrivateDir(p.def.ConfigDir); err != nil {
			return fmt.Errorf("the directory of the configuration: %w", err)
		}
	}
	if !replace {
		s, err := p.kardianos(commandLine)
		if err != nil {
			return err
		}
		if err := s.Install(); err != nil {
			return err
		}
	}
	err := p.open(windows.SERVICE_ALL_ACCESS, func(s *mgr.Service) error {
		if replace {
			if err := changeConfig(s, p.def.DisplayName, p.def.Description, windows.ComposeCommandLine(commandLine)); err != nil {
				return err
			}
		}
		return setRecovery(s)
	})
	if err != nil && !replace {
		// One that would not be restarted must not pass for installed.
		return errors.Join(err, p.uninstall(context.Background()))
	}
	return err
}

func (p *scm) uninstall(context.Context) error {
	s, err := p.kardianos([]string{""})
	if err != nil {
		return err
	}
	return s.Uninstall()
}

func (p *scm) kardianos(commandLine []string) (service.Service, error) {
	return service.New(idle{}, &service.Config{
		Name: p.def.Name, DisplayName: p.def.DisplayName, Description: p.def.Description,
		Executable: commandLine[0], Arguments: commandLine[1:],
	})
}

func (p *scm) start(ctx context.Context) error {
	return p.open(windows.SERVICE_START|windows.SERVICE_QUERY_STATUS, func(s *mgr.Service) error {
		err := s.Start()
		if err != nil && !errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
			return err
		}
		for end := time.Now().Add(settle); ; {
			status, err := s.Query()
			switch {
			case err != nil:
				return err
			case status.State == svc.Stopped:
				return fmt.Errorf("it started and ended with exit code %d: the reason is in the Event Log under Application, source %s", exitStatus(status), p.def.Name)
			case status.State == svc.Running && time.Now().After(end):
				return nil
			}
			if err := backoff.Wait(ctx, pollEvery); err != nil {
				return err
			}
		}
	})
}

func (p *scm) stop(ctx context.Context) error {
	return p.open(windows.SERVICE_STOP|windows.SERVICE_QUERY_STATUS, func(s *mgr.Service) error {
		_, err := s.Control(svc.Stop)
		if errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
			return nil
		}
		if err != nil {
			return err
		}
		for {
			status, err := s.Query()
			if err != nil {
				return err
			}
			if status.State == svc.Stopped {
				return nil
			}
			if err := backoff.Wait(ctx, pollEvery); err != nil {
				return fmt.Errorf("it still stops: %w", err)
			}
		}
	})
}

func (p *scm) restart(ctx context.Context) error {
	if err := p.stop(ctx); err != nil {
		return err
	}
	return p.start(ctx)
}
