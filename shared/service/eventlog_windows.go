package service

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows/svc/eventlog"
)

// Events of the Event Log. Install registers the service as a source whose
// messages are whole texts, so the numbers only tell the events apart.
const (
	eventReady   = 1
	eventStopped = 2
	eventFailed  = 3
)

// events is the manager of a service of Windows. What the service manager must
// know goes through the handler; this is what people read.
type events struct{ log *eventlog.Log } // nil if there is no Event Log

func openEventLog(source string) *events {
	log, err := eventlog.Open(source)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: no Event Log: %v\n", source, err)
		return &events{}
	}
	return &events{log: log}
}

func (e *events) ready() {
	if e.log != nil {
		_ = e.log.Info(eventReady, "The service is ready.")
	}
}

func (e *events) stopping() {
	if e.log != nil {
		_ = e.log.Info(eventStopped, "The service was asked to stop.")
	}
}

// A reload is nothing here either: its outcome is in the log, and a failure in
// the state that the daemon reports.
func (e *events) reloading() {}
func (e *events) reloaded()  {}

// status is nothing here: Windows has no status line for services, and the
// Event Log is for what an operator must see.
func (e *events) status(string) {}

func (e *events) failed(err error) {
	if e.log != nil {
		_ = e.log.Error(eventFailed, "The service fails: "+err.Error())
	}
}

func (e *events) close() {
	if e.log != nil {
		_ = e.log.Close()
	}
}
