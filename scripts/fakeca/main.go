// Command fakeca plays a commercial certificate authority, so that slow orders can
// be tried without an account: it takes orders in the vendor's dialect, lets a person
// approve them on a page, and hands out certificates that are worth nothing.
//
//	go run ./scripts/fakeca -vendor digicert -approval
//
// It prints what an issuer's settings have to say to use it. Everything is made anew
// at each start.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/testca"
)

// headerTime bounds how long a client may take with a request's header.
const headerTime = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are the command line.
type options struct {
	vendor          string
	listen, control string
	dir             string
	fake            fakeca.Config
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("fakeca", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.vendor, "vendor", "", "whom to play: "+strings.Join(slices.Sorted(maps.Keys(vendors)), ", "))
	flags.StringVar(&o.listen, "listen", "127.0.0.1:0", "address of the API")
	flags.StringVar(&o.control, "control", "127.0.0.1:0", "address of the page on which orders are approved; loopback alone, as it asks nobody who they are")
	flags.StringVar(&o.dir, "dir", "", "directory for certificates and keys; a temporary one that is removed in the end if empty")
	flags.BoolVar(&o.fake.Approval, "approval", false, "have every order wait until it is approved")
	flags.DurationVar(&o.fake.Delay, "delay", 0, "from an order, or its approval, to its certificate")
	flags.DurationVar(&o.fake.Spread, "spread", 0, "up to so much is added to the delay")
	flags.DurationVar(&o.fake.Validity, "validity", 0, "of certificates whose order does not say; 90 days if 0")
	flags.Uint64Var(&o.fake.Seed, "seed", 1, "decides which request meets which fault")
	flags.Float64Var(&o.fake.Rates.Lost, "lost", 0, "share of the requests whose answer is lost after they were acted upon, such as 0.2")
	flags.Float64Var(&o.fake.Rates.Errors, "errors", 0, "share of the requests that are answered with status 500")
	flags.Float64Var(&o.fake.Rates.Busy, "busy", 0, "share of the requests that are answered with status 429")
	flags.DurationVar(&o.fake.Rates.RetryAfter, "retry-after", 0, "told with status 429")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "fakeca plays a commercial certificate authority, for trying slow orders without an account.\n\nExamples:\n"+
			"  go run ./scripts/fakeca -vendor digicert -approval\n  go run ./scripts/fakeca -vendor sectigo -delay 2m -lost 0.2\n\nFlags:")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q is no flag", flags.Arg(0))
	}
	if vendors[o.vendor] == nil {
		return o, fmt.Errorf("-vendor: %q; play one of %s", o.vendor, strings.Join(slices.Sorted(maps.Keys(vendors)), ", "))
	}
	host, _, err := net.SplitHostPort(o.control)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return o, fmt.Errorf("-control: %q; it asks nobody who they are: use a loopback address", o.control)
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "fakeca:", err)
		return 2
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "fakeca-"); err == nil {
			defer os.RemoveAll(o.dir)
		}
	}
	if err == nil {
		err = play(ctx, o, stdout)
	}
	if err != nil {
		fmt.Fprintln(stderr, "fakeca:", err)
		return 1
	}
	return 0
}

// play serves the fake and its control page until ctx is done.
func play(ctx context.Context, o options, stdout io.Writer) error {
	fake := vendors[o.vendor](o.fake)
	server, err := testca.NewServerTLS(o.dir)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(server.CertFile, server.KeyFile)
	if err != nil {
		return err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	control, err := config.Listen(ctx, "tcp", o.control)
	if err != nil {
		return err
	}
	defer control.Close()
	// A client's certificate is asked for, and looked at by the fake.
	api := &http.Server{Handler: fake, ReadHeaderTimeout: headerTime, TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12,
	}}
	page := &http.Server{Handler: fake.Core().Control(), ReadHeaderTimeout: headerTime}
	if err := tell(o, fake, server.RootFile, listener.Addr().String(), control.Addr().String(), stdout); err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- api.ServeTLS(listener, "", "") }()
	go func() { failed <- page.Serve(control) }()
	running := 2
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
		running--
	}
	// What is under way, hanging answers among it, is cut off.
	_, _ = api.Close(), page.Close()
	for range running {
		if ended := <-failed; err == nil && !errors.Is(ended, http.ErrServerClosed) {
			err = ended
		}
	}
	return err
}

// tell prints how to use the fake, and writes the files that this takes.
func tell(o options, fake fakeca.Server, rootFile, api, control string, stdout io.Writer) error {
	settings := maps.Clone(fake.Account())
	path := settings["path"]
	delete(settings, "path")
	settings["url"], settings["ca_file"] = "https://"+api+path, rootFile
	if c, ok := fake.(certified); ok {
		var err error
		if settings["client_certificate_file"], settings["client_key_file"], err = writeClient(o.dir, c.Client()); err != nil {
			return err
		}
	}
	issued := filepath.Join(o.dir, "issued-root.pem")
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: fake.Core().Root().Raw})
	if err := os.WriteFile(issued, root, 0o600); err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s is played here. Its certificates are worth nothing, and its orders cost nothing.\n\n", o.vendor)
	fmt.Fprintf(&text, "Orders are shown, approved and rejected at http://%s/\n", control)
	fmt.Fprintf(&text, "What is issued is vouched for by %s\n\nFor an issuer of the kind %s:\n", issued, o.vendor)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "  %s: %s\n", name, settings[name])
	}
	_, err := fmt.Fprintln(stdout, text.String())
	return err
}

func writeClient(dir string, client tls.Certificate) (certFile, keyFile string, err error) {
	key, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		return "", "", err
	}
	certFile, keyFile = filepath.Join(dir, "client.pem"), filepath.Join(dir, "client-key.pem")
	var certs []byte
	for _, der := range client.Certificate {
		certs = append(certs, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := os.WriteFile(certFile, certs, 0o600); err != nil {
		return "", "", err
	}
	return certFile, keyFile, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)
}
