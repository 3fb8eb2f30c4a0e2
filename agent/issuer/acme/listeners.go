package acme

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/certctl/certctl/agent/issuer"
)

const (
	// listenerTimeout bounds each step of a connection from the CA.
	listenerTimeout = 5 * time.Second
	// listenerConnections bounds what strangers can hold open meanwhile.
	listenerConnections = 128
)

// Listeners are the ports on which a process answers http-01 and tls-alpn-01
// challenges. A port is open only while at least one answer is to be seen on it,
// and all orders of all issuers share it. Safe for concurrent use.
type Listeners struct {
	http responders[string]           // token → key authorization
	tls  responders[*tls.Certificate] // server name → certificate
}

// NewListeners returns a set without open ports. Log may be nil.
func NewListeners(log *slog.Logger) *Listeners {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Listeners{
		http: responders[string]{serve: func(l net.Listener, find func(string) (string, bool)) func() {
			return serve(l, newHTTP01Server(find), log)
		}},
		tls: responders[*tls.Certificate]{serve: func(l net.Listener, find func(string) (*tls.Certificate, bool)) func() {
			server, config := newTLSALPN01Server(find)
			return serve(tls.NewListener(l, config), server, log)
		}},
	}
}

// responders are the open ports for one kind of challenge.
type responders[T any] struct {
	// serve answers on the listener from what find knows until the returned
	// function is called.
	serve func(l net.Listener, find func(key string) (T, bool)) (stop func())

	mu   sync.Mutex // held while a port is opened or closed, so that the two cannot cross
	open map[string]*responder[T]
}

type responder[T any] struct {
	stop func()

	mu      sync.RWMutex
	entries map[string]*entry[T]
}

type entry[T any] struct {
	owner string // challenge token
	value T
	gone  chan struct{} // closed when the entry is removed
}

func (r *responder[T]) find(key string) (T, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.entries[key]; e != nil {
		return e.value, true
	}
	var none T
	return none, false
}

// add makes value the owner's answer for key on the address, and opens its port
// if it is the first there. While another owner holds the key, add waits:
// tls-alpn-01 has one certificate for each name, whoever asks.
func (r *responders[T]) add(ctx context.Context, address, key, owner string, value T) error {
	for {
		busy, err := r.tryAdd(ctx, address, key, owner, value)
		if err != nil || busy == nil {
			return err
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *responders[T]) tryAdd(ctx context.Context, address, key, owner string, value T) (busy <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.open[address]
	if at == nil {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return nil, &issuer.Error{
				Class: issuer.ClassConfig,
				Err:   fmt.Errorf("listen on %s for validation: %w", address, err),
				Mend: "free the port, let the service manager grant it to certctl-agent (CAP_NET_BIND_SERVICE), " +
					"or choose another challenge such as an http-01 webroot or dns-01",
			}
		}
		at = &responder[T]{entries: map[string]*entry[T]{}}
		at.stop = r.serve(netutil.LimitListener(listener, listenerConnections), at.find)
		if r.open == nil {
			r.open = map[string]*responder[T]{}
		}
		r.open[address] = at
	}
	at.mu.Lock()
	defer at.mu.Unlock()
	if held := at.entries[key]; held != nil {
		return held.gone, nil
	}
	at.entries[key] = &entry[T]{owner: owner, value: value, gone: make(chan struct{})}
	return nil, nil
}

// remove takes the owner's answer away, if it is there, and closes the port after
// the last one. It returns when the port is closed.
func (r *responders[T]) remove(address, key, owner string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.open[address]
	if at == nil {
		return
	}
	at.mu.Lock()
	if e := at.entries[key]; e != nil && e.owner == owner {
		delete(at.entries, key)
		close(e.gone)
	}
	last := len(at.entries) == 0
	at.mu.Unlock()
	if last {
		delete(r.open, address)
		at.stop()
	}
}

// serve runs the server until stop, which waits for it.
func serve(listener net.Listener, server *http.Server, log *slog.Logger) (stop func()) {
	server.ReadHeaderTimeout = listenerTimeout
	server.ReadTimeout = listenerTimeout
	server.WriteTimeout = listenerTimeout
	server.IdleTimeout = listenerTimeout
	server.MaxHeaderBytes = 8 << 10
	server.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug) // strangers' noise
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // always http.ErrServerClosed, by stop
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
		<-done
	}
}
