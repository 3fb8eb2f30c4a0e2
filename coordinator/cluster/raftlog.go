package cluster

import (
	"context"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger lets Raft log through slog. Raft's messages are constant texts
// with pairs, which is what slog wants too.
type raftLogger struct {
	hclog.Logger // what Raft does not use does nothing
	log          *slog.Logger
}

func newRaftLogger(log *slog.Logger) hclog.Logger {
	return &raftLogger{Logger: hclog.NewNullLogger(), log: log.With("component", "raft")}
}

func (l *raftLogger) level(level hclog.Level) slog.Level {
	switch level {
	case hclog.Error:
		return slog.LevelError
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Info:
		// What Raft tells at this level concerns itself: elections, snapshots.
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}

// Log implements hclog.Logger.
func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	l.log.Log(context.Background(), l.level(level), msg, errorKey(args)...)
}

// errorKey renames Raft's "error" to the key that this project uses.
func errorKey(args []any) []any {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "error" {
			renamed := append([]any(nil), args...)
			renamed[i] = "err"
			return renamed
		}
	}
	return args
}

func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLogger) enabled(level hclog.Level) bool {
	return l.log.Enabled(context.Background(), l.level(level))
}

func (l *raftLogger) IsTrace() bool { return l.enabled(hclog.Trace) }
func (l *raftLogger) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *raftLogger) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *raftLogger) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *raftLogger) IsError() bool { return l.enabled(hclog.Error) }

// With implements hclog.Logger.
func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{Logger: l.Logger, log: l.log.With(errorKey(args)...)}
}

// Named implements hclog.Logger. The name of a part of Raft tells nothing that
// its messages do not.
func (l *raftLogger) Named(string) hclog.Logger { return l }

// ResetNamed implements hclog.Logger.
func (l *raftLogger) ResetNamed(string) hclog.Logger { return l }
