package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// raftLogger lets Raft log through slog. Raft's messages are constant texts
// with pairs, which is what slog wants too.
type raftLogger struct {
	hclog.Logger // what Raft does not use does nothing
	log          *slog.Logger
	repeats      *repeats
}

func newRaftLogger(log *slog.Logger) hclog.Logger {
	return &raftLogger{Logger: hclog.NewNullLogger(), log: log.With("component", "raft"), repeats: &repeats{}}
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
	args = pairs(args)
	if level == hclog.Error && nothingWrong(args) {
		level = hclog.Debug
	}
	if level >= hclog.Info {
		again, tell := l.repeats.note(level, msg, args)
		if !tell {
			return
		}
		if again > 0 {
			args = append(args, "repeated", again)
		}
	}
	l.log.Log(context.Background(), l.level(level), msg, args...) //nolint:sloglint // Raft gives constant messages
}

// nothingWrong recognises what Raft calls an error and is none: a snapshot was
// asked for, and the last one still holds everything; or a stream has ended that
// this node closed itself.
func nothingWrong(args []any) bool {
	for _, arg := range args {
		if err, ok := arg.(error); ok && (errors.Is(err, raft.ErrNothingNewToSnapshot) || errors.Is(err, net.ErrClosed)) {
			return true
		}
	}
	return false
}

// pairs makes Raft's pairs ready for slog: "error" gets the key that this
// project uses, formats are carried out, and what can say what it is does so
// instead of showing its fields, of which JSON would see none.
func pairs(args []any) []any {
	ready := make([]any, len(args))
	for i, arg := range args {
		switch v := arg.(type) {
		case hclog.Format:
			ready[i] = formatted(v)
		case error:
			ready[i] = v
		case fmt.Stringer:
			ready[i] = v.String()
		default:
			ready[i] = arg
		}
		if i%2 == 0 && arg == "error" {
			ready[i] = "err"
		}
	}
	return ready
}

func formatted(f hclog.Format) string {
	if len(f) == 0 {
		return ""
	}
	layout, ok := f[0].(string)
	if !ok {
		return fmt.Sprint(f...)
	}
	return fmt.Sprintf(layout, f[1:]...)
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
	return &raftLogger{Logger: l.Logger, log: l.log.With(pairs(args)...), repeats: l.repeats}
}

// Named implements hclog.Logger. The name of a part of Raft tells nothing that
// its messages do not.
func (l *raftLogger) Named(string) hclog.Logger { return l }

// ResetNamed implements hclog.Logger.
func (l *raftLogger) ResetNamed(string) hclog.Logger { return l }
