package service

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc/mgr"
)

// The functions here ask for and change exactly what this package needs.
// mgr.Service.Config and UpdateConfig do more in one call, among it settings
// that wine does not know, and fail there as a whole.

// scmConfig is what the service manager has been told about a service.
type scmConfig struct {
	commandLine string
	startType   uint32
}

func queryConfig(s *mgr.Service) (scmConfig, error) {
	// The answer is a structure followed by the strings that it points to.
	for size := uint32(1024); ; {
		buffer := make([]uint64, (size+7)/8) // aligned for pointers
		config := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(&buffer[0]))
		held := uint32(len(buffer) * 8)
		err := windows.QueryServiceConfig(s.Handle, config, held, &size)
		if errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) && size > held {
			continue
		}
		if err != nil {
			return scmConfig{}, fmt.Errorf("configuration of the service: %w", err)
		}
		return scmConfig{commandLine: windows.UTF16PtrToString(config.BinaryPathName), startType: config.StartType}, nil
	}
}

// changeConfig writes the definition of a service that is there anew.
func changeConfig(s *mgr.Service, displayName, description, commandLine string) error {
	var words [3]*uint16
	for i, text := range []string{displayName, description, commandLine} {
		var err error
		if words[i], err = windows.UTF16PtrFromString(text); err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
	}
	err := windows.ChangeServiceConfig(s.Handle, windows.SERVICE_NO_CHANGE, windows.SERVICE_AUTO_START,
		windows.SERVICE_NO_CHANGE, words[2], nil, nil, nil, nil, nil, words[0])
	if err != nil {
		return fmt.Errorf("change the service: %w", err)
	}
	about := windows.SERVICE_DESCRIPTION{Description: words[1]}
	if err := windows.ChangeServiceConfig2(s.Handle, windows.SERVICE_CONFIG_DESCRIPTION, (*byte)(unsafe.Pointer(&about))); err != nil {
		return fmt.Errorf("description of the service: %w", err)
	}
	return nil
}

// setRecovery has Windows start the service again whenever it ends without
// having been asked to: by a crash, or by itself with an exit code.
func setRecovery(s *mgr.Service) error {
	actions := []mgr.RecoveryAction{
		{Type: mgr.ServiceRestart, Delay: 2 * time.Second},
		{Type: mgr.ServiceRestart, Delay: 10 * time.Second},
		{Type: mgr.ServiceRestart, Delay: time.Minute}, // and so on
	}
	for what, set := range map[string]func() error{
		"recovery actions":                func() error { return s.SetRecoveryActions(actions, uint32(time.Hour/time.Second)) },
		"recovery actions for exit codes": func() error { return s.SetRecoveryActionsOnNonCrashFailures(true) },
	} {
		// Every Windows since 2008 knows both levels; wine 8 does not, and
		// starts nothing again.
		if err := set(); err != nil && !errors.Is(err, windows.ERROR_INVALID_LEVEL) {
			return fmt.Errorf("%s of the service: %w", what, err)
		}
	}
	return nil
}
