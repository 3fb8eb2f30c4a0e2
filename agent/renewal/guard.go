package renewal

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/certctl/certctl/agent/issuer"
)

// guarded calls code of an issuer or a target with a time limit. A panic there
// becomes an error of this certificate alone; its stack goes to the log.
func guarded[T any](ctx context.Context, limit time.Duration, log *slog.Logger, what string, call func(context.Context) (T, error)) (result T, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer func() {
		if value := recover(); value != nil {
			log.Error("call panicked", "call", what, "panic", fmt.Sprint(value), "stack", string(debug.Stack()))
			err = &issuer.Error{
				Class: issuer.ClassConfig, Committed: true, // who knows how far it had come
				Mend: "this is a bug, report it with the log",
				Err:  fmt.Errorf("%s panicked: %v", what, value),
			}
		}
	}()
	return call(ctx)
}
