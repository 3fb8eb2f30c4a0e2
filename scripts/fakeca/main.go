// Command fakeca plays a certificate authority, so that slow orders can be tried
// without an account: it takes orders in the vendor's dialect, lets a person approve
// them on a page, and hands out certificates that are worth nothing.
//
//	go run ./scripts/fakeca -vendor digicert -approval
//
// It prints what an issuer's settings have to say to use it. Everything is made anew
// at each start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/served"
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
	flags.StringVar(&o.vendor, "vendor", "", "whom to play: "+strings.Join(served.Kinds(), ", "))
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
		fmt.Fprintln(stderr, "fakeca plays a certificate authority, for trying orders without an account.\n\nExamples:\n"+
			"  go run ./scripts/fakeca -vendor digicert -approval\n  go run ./scripts/fakeca -vendor sectigo -delay 2m -lost 0.2\n\nFlags:")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q is no flag", flags.Arg(0))
	}
	if !slices.Contains(served.Kinds(), o.vendor) {
		return o, fmt.Errorf("-vendor: %q; play one of %s", o.vendor, strings.Join(served.Kinds(), ", "))
	}
	if served.AtOnce(o.vendor) && (o.fake.Approval || o.fake.Delay != 0 || o.fake.Spread != 0) {
		return o, fmt.Errorf("-vendor %s: its orders are answered with their certificates; leave out -approval, -delay and -spread", o.vendor)
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
	fake, err := served.Listen(ctx, o.vendor, o.dir, o.listen, o.fake)
	if err != nil {
		return err
	}
	defer fake.Close()
	var config net.ListenConfig
	control, err := config.Listen(ctx, "tcp", o.control)
	if err != nil {
		return err
	}
	defer control.Close()
	page := &http.Server{Handler: fake.Fake.Core().Control(), ReadHeaderTimeout: headerTime}
	if err := tell(fake, control.Addr().String(), stdout); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, 1)
	go func() {
		defer stop()
		failed <- page.Serve(control)
	}()
	context.AfterFunc(ctx, func() { _ = page.Close() })
	err = fake.Serve(ctx)
	stop()
	if ended := <-failed; err == nil && !errors.Is(ended, http.ErrServerClosed) {
		err = ended
	}
	return err
}

// tell prints how to use the fake.
func tell(s *served.Server, control string, stdout io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s is played here. Its certificates are worth nothing, and its orders cost nothing.\n\n", s.Kind)
	fmt.Fprintf(&text, "Orders are shown, approved and rejected at http://%s/\n", control)
	fmt.Fprintf(&text, "What is issued is vouched for by %s\n\nIn the coordinator's configuration file:\n\n", s.Root)
	fmt.Fprintf(&text, "issuers:\n  fake:\n%s", s.Settings("    "))
	_, err := fmt.Fprintln(stdout, text.String())
	return err
}
