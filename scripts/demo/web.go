package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/certctl/certctl/internal/testnginx"
)

// web is the program that serves the certificates.
type web struct {
	Kind    string
	Address string
	Sites   []webSite
	Check   []string
	Reload  []string
}

type webSite struct{ name, certificate, key string }

// startWeb starts nginx, or, where there is none, a small server of our own.
func startWeb(ctx context.Context, s *stage) (*web, error) {
	dir := s.path("web")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	server, err := testnginx.Start(dir, testnginx.Options{Sites: []testnginx.Site{{Name: internalName}, {Name: publicName}, {Name: orderedName}}})
	switch {
	case errors.Is(err, testnginx.ErrNotInstalled):
		return startOwnWeb(ctx, s, dir)
	case err != nil:
		return nil, err
	}
	s.onClear(func() {
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	w := &web{Kind: "nginx", Address: server.Address(), Check: server.CheckArgv(), Reload: server.ReloadArgv()}
	for i := range 3 {
		site := server.Site(i)
		w.Sites = append(w.Sites, webSite{site.Name, site.Certificate, site.Key})
	}
	return w, nil
}

// startOwnWeb serves TLS in this process; SIGHUP makes it read the files again.
func startOwnWeb(ctx context.Context, s *stage, dir string) (*web, error) {
	w := &web{Kind: "the demonstration's own TLS server", Reload: []string{"kill", "-HUP", strconv.Itoa(os.Getpid())}}
	for _, name := range []string{internalName, publicName, orderedName} {
		site := webSite{name, dir + "/" + name + ".pem", dir + "/" + name + ".key"}
		if err := testnginx.WritePlaceholder(name, site.certificate, site.key); err != nil {
			return nil, err
		}
		w.Sites = append(w.Sites, site)
	}
	var served atomic.Pointer[map[string]*tls.Certificate]
	read := func() error {
		all := make(map[string]*tls.Certificate)
		for _, site := range w.Sites {
			pair, err := tls.LoadX509KeyPair(site.certificate, site.key)
			if err != nil {
				return fmt.Errorf("%s: %w", site.name, err)
			}
			all[site.name] = &pair
		}
		served.Store(&all)
		return nil
	}
	if err := read(); err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w.Address = listener.Addr().String()
	server := &http.Server{
		Handler:           http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintln(rw, r.Host) }),
		ReadHeaderTimeout: 5 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if pair := (*served.Load())[hello.ServerName]; pair != nil {
				return pair, nil
			}
			return nil, errors.New("no such site")
		}},
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hup {
			if err := read(); err != nil {
				fmt.Fprintln(os.Stderr, "reload:", err)
			}
		}
	}()
	go func() {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	s.onClear(func() {
		signal.Stop(hup)
		close(hup)
		<-done
		server.Close()
	})
	return w, nil
}
