package main

// allowed are the places outside of a durable step, with the reason of each.
var allowed = map[place]string{
	{"agent/cmd/certctl-agent/run.go", "openState", "durable.EnsurePrivateDir"}: "a private directory that is missing, or a leftover of the test whether it can be written, is met again by the next start, before its first step",

	{"agent/control/socket_unix.go", "Close", "os.Remove"}:    "the control socket is of this process, and is made anew by each",
	{"agent/control/socket_unix.go", "listen", "os.MkdirAll"}: "the control socket is of this process, and is made anew by each",
	{"agent/control/socket_unix.go", "listen", "os.Remove"}:   "the control socket is of this process, and is made anew by each",
	{"agent/control/socket_unix.go", "makeWay", "os.Remove"}:  "the control socket is of this process, and is made anew by each",
	{"agent/control/socket_unix.go", "open", "os.Chmod"}:      "the control socket is of this process, and is made anew by each",
	{"agent/control/socket_unix.go", "open", "os.Chown"}:      "the control socket is of this process, and is made anew by each",
	{"agent/control/socket_unix.go", "open", "os.Rename"}:     "the control socket is of this process, and is made anew by each",

	{"agent/deploy/file/access.go", "openRegular", "os.OpenFile"}: "reads",

	{"agent/deploy/file/disk.go", "removeIfThere", "os.Remove"}: "is called in steps: remove, remove leftover, close transaction",

	{"agent/issuer/acme/http01.go", "present", "os.OpenRoot"}:  "an answer to a challenge is no secret, and is not needed after a crash: the next attempt has another one",
	{"agent/issuer/acme/http01.go", "withdraw", "os.OpenRoot"}: "an answer to a challenge is no secret, and is not needed after a crash: the next attempt has another one",

	{"agent/keys/keys.go", "OpenDir", "durable.EnsurePrivateDir"}: "a private directory that is missing, or a leftover of the test whether it can be written, is met again by the next start, before its first step",
	{"agent/keys/keys.go", "OpenDir", "durable.RemoveStaleTemp"}:  "a private directory that is missing, or a leftover of the test whether it can be written, is met again by the next start, before its first step",
	{"agent/keys/keys.go", "write", "durable.Sync"}:               "is a table of steps, each of which goes through Around",
	{"agent/keys/keys.go", "write", "durable.SyncDir"}:            "is a table of steps, each of which goes through Around",
	{"agent/keys/keys.go", "write", "os.OpenFile"}:                "is a table of steps, each of which goes through Around",

	{"agent/metrics/serve.go", "writeFile", "durable.WriteFile"}: "is written anew every minute, for another program",

	{"agent/store/migrate.go", "copyFile", "durable.Sync"}: "is called in the step that keeps a copy of an older schema",
	{"agent/store/migrate.go", "copyFile", "os.OpenFile"}:  "is called in the step that keeps a copy of an older schema",

	{"agent/store/open.go", "checkDirectory", "durable.EnsurePrivateDir"}: "a private directory that is missing, or a leftover of the test whether it can be written, is met again by the next start, before its first step",
	{"agent/store/open.go", "createIfMissing", "os.Remove"}:               "removes what an attempt left that did not end, as the next start would",
	{"agent/store/open.go", "open", "durable.RemoveStaleTemp"}:            "a private directory that is missing, or a leftover of the test whether it can be written, is met again by the next start, before its first step",
	{"agent/store/open.go", "openFile", "os.OpenFile"}:                    "bbolt opens the state file, and writes it in the transactions, which are steps",

	{"agent/store/room.go", "writeRoom", "durable.Sync"}: "is called in the step that checks room",
	{"agent/store/room.go", "writeRoom", "os.OpenFile"}:  "is called in the step that checks room",

	{"shared/service/control_linux.go", "install", "durable.MkdirAll"}:  "is the command that installs the service, which an operator repeats",
	{"shared/service/control_linux.go", "install", "os.Remove"}:         "is the command that installs the service, which an operator repeats",
	{"shared/service/control_linux.go", "replace", "durable.WriteFile"}: "is the command that installs the service, which an operator repeats",

	{"shared/service/control_windows.go", "install", "durable.EnsurePrivateDir"}: "is the command that installs the service, which an operator repeats",

	{"shared/service/logfile_windows.go", "cut", "os.OpenFile"}:                  "is the log",
	{"shared/service/logfile_windows.go", "cut", "os.Truncate"}:                  "is the log",
	{"shared/service/logfile_windows.go", "openLog", "durable.EnsurePrivateDir"}: "is the log",
	{"shared/service/logfile_windows.go", "openLog", "os.MkdirAll"}:              "is the log",
	{"shared/service/logfile_windows.go", "openLog", "os.OpenFile"}:              "is the log",

	{"shared/service/run_unix.go", "hasTerminal", "os.OpenFile"}: "opens the terminal",
}
