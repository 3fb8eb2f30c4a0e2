package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"github.com/spf13/pflag"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
)

// startedByManager is set while flags are parsed, before Run: the command line
// of an installed service carries --service. A process is one service at most.
// The flag, and not svc.IsWindowsService, decides, because it is certain on
// every implementation of Windows.
var startedByManager bool

const serviceFlag = "service"

// BindRun adds to the verb run the hidden flags that the command line of an
// installed service carries.
func BindRun(flags *pflag.FlagSet) {
	flags.BoolVar(&startedByManager, serviceFlag, false, "run as a service of Windows (the service manager passes this)")
	if err := flags.MarkHidden(serviceFlag); err != nil {
		panic(err) // it was added in the line above
	}
}

// Run calls main and returns what it returns: the exit status of the process.
// One process may be in Run once at a time.
//
// As a service it reports Running at once, calls main on a goroutine of its
// own and cancels its context at Stop, Shutdown and Preshutdown. A status other
// than 0 is reported as the service-specific exit code. Its output goes to a log
// file, %ProgramData%\certctl\logs\NAME.log, since Windows gives services none.
// In a console Ctrl-C cancels the context, and a second Ctrl-C ends the process
// at once.
func Run(ctx context.Context, def Definition, main func(ctx context.Context, life Lifecycle) int) int {
	if err := def.validate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if startedByManager {
		return runService(ctx, def, main)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	// From the first one on Windows' own handling is in force again.
	defer context.AfterFunc(ctx, stop)()
	return main(ctx, Lifecycle{s: newSession(unmanaged{})})
}

func runService(ctx context.Context, def Definition, main func(context.Context, Lifecycle) int) int {
	console := os.Stderr // before the log takes its place
	events := openEventLog(def.Name)
	defer events.close()
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	// A service without a log is better than none, since certificates are
	// renewed all the same; the Event Log says why.
	if log, err := serviceLog(def.Name); err != nil {
		events.failed(fmt.Errorf("it has no log file: %w", err))
	} else {
		beside.Go(func() { log.keepSmall(ctx) })
	}

	h := &handler{ctx: ctx, main: main, session: newSession(events), status: 1}
	err := svc.Run(def.Name, h)
	switch {
	case errors.Is(err, windows.ERROR_FAILED_SERVICE_CONTROLLER_CONNECT):
		fmt.Fprintf(console, "%s: --%s is for the service manager of Windows: start the service, or leave the flag out\n", def.Name, serviceFlag)
		return 1
	case err != nil:
		err = fmt.Errorf("the service manager of Windows: %w", err)
		events.failed(err)
		fmt.Fprintf(os.Stderr, "%s: %v\n", def.Name, err)
		return 1
	}
	return h.status
}

// serviceLog opens the service's log and makes it this process's output.
func serviceLog(name string) (*logFile, error) {
	path, err := logPath(name)
	if err != nil {
		return nil, err
	}
	log, err := openLog(path)
	if err != nil {
		return nil, err
	}
	if err := log.takeOutput(); err != nil {
		log.file.Close()
		return nil, err
	}
	return log, nil
}
