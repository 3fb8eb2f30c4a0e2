// Package service runs certctl's daemons under the service manager of the
// host, and installs and controls them there: systemd on Linux, the Service
// Control Manager on Windows.
//
// [Run] is the frame around a daemon's life. It turns what the service manager
// asks (stop, reload, are you well?) into a context, a channel and a call, and
// what the daemon has to say ([Lifecycle]) into what the service manager
// understands. Without a service manager, in a terminal or a container, the
// same frame obeys signals and says nothing.
//
// [Commands] gives the verbs install, uninstall, start, stop, restart and
// service status to a command line; [Control] is the same for Go.
package service
