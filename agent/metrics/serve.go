package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/runner"
)

// Bounds of the server, which has one client by its nature.
const (
	maxConnections = 16
	maxRequests    = 2
	maxHeader      = 16 << 10
	patience       = 10 * time.Second
	writePatience  = time.Minute
	idlePatience   = 5 * time.Minute
	// listenAgain is the pause after an address could not be had.
	listenAgain = 30 * time.Second
	// closePatience is how long a request under way may take to end at a stop.
	closePatience = 2 * time.Second
)

// Run serves and writes until ctx is done. Without an address and a file it only
// waits.
func (r *Reporter) Run(ctx context.Context) error {
	return runner.Run(ctx,
		runner.Task{Name: "metrics address", Run: r.serve},
		runner.Task{Name: "metrics file", Run: r.write},
	)
}

// serve keeps the address, whatever happens to it: that metrics cannot be served
// is no reason to renew nothing.
func (r *Reporter) serve(ctx context.Context) error {
	if r.cfg.Listen == "" {
		<-ctx.Done()
		return nil
	}
	complained := false
	now := make(chan struct{}, 1)
	now <- struct{}{}
	jitter.Loop(ctx, listenAgain, jitter.DefaultSchedulerJitter, now, func(ctx context.Context) {
		err := r.listen(ctx)
		if err != nil && ctx.Err() == nil && !complained {
			complained = true
			r.cfg.Log.Error("metrics are not served; this is tried again until it succeeds", "address", r.cfg.Listen, "err", err)
		}
	})
	return nil
}

// listen serves until ctx is done or the address is lost.
func (r *Reporter) listen(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", r.cfg.Listen)
	if err != nil {
		return fmt.Errorf("metrics.listen: %w; choose an address that is free", err)
	}
	defer listener.Close()
	select {
	case r.listening <- listener.Addr():
	default:
	}
	r.cfg.Log.Info("metrics are served", "address", listener.Addr().String())
	server := &http.Server{
		Handler: r, ReadHeaderTimeout: patience, ReadTimeout: patience, WriteTimeout: writePatience, IdleTimeout: idlePatience,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(r.cfg.Log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(netutil.LimitListener(listener, maxConnections)) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closePatience)
	defer cancel()
	if server.Shutdown(closing) != nil {
		_ = server.Close() // a slow reader is cut off
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ServeHTTP answers GET /metrics.
func (r *Reporter) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	switch {
	case request.URL.Path != "/metrics":
		http.Error(w, "there is only /metrics here", http.StatusNotFound)
		return
	case request.Method != http.MethodGet && request.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return
	}
	select {
	case r.busy <- struct{}{}:
		defer func() { <-r.busy }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "other scrapes are under way", http.StatusServiceUnavailable)
		return
	}
	answer := &answer{w: w}
	if err := r.Write(answer); err != nil && !answer.begun {
		r.cfg.Log.Error("metrics could not be made", "err", err)
		http.Error(w, "the metrics could not be made; see the agent's log", http.StatusInternalServerError)
	}
}

// answer sets the head of an answer when its body begins: before that it may
// still become an error.
type answer struct {
	w     http.ResponseWriter
	begun bool
}

// Write implements io.Writer.
func (a *answer) Write(p []byte) (int, error) {
	if !a.begun {
		a.begun = true
		a.w.Header().Set("Content-Type", ContentType)
		a.w.Header().Set("Cache-Control", "no-store")
	}
	return a.w.Write(p)
}

// write keeps the file.
func (r *Reporter) write(ctx context.Context) error {
	if r.cfg.TextFile == "" {
		<-ctx.Done()
		return nil
	}
	complained := false
	now := make(chan struct{}, 1)
	now <- struct{}{}
	jitter.Loop(ctx, r.cfg.TextFileInterval, jitter.DefaultSchedulerJitter, now, func(context.Context) {
		err := r.writeFile()
		if err != nil && !complained {
			r.cfg.Log.Error("the file of metrics could not be written; this is tried again until it succeeds", "path", r.cfg.TextFile, "err", err)
		}
		complained = err != nil
	})
	return nil
}

// writeFile replaces the file: its reader sees the old one or the new one.
func (r *Reporter) writeFile() error {
	var text bytes.Buffer
	if err := r.Write(&text); err != nil {
		return err
	}
	if err := durable.WriteFile(r.cfg.TextFile, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("metrics.textfile: %w", err)
	}
	return nil
}
