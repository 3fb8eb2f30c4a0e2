// Command demo shows certctl at work with real programs: it starts a
// coordinator, an agent, an ACME CA and a web server, plays an authority at which
// orders wait for a person, and tells what it sees.
// Every step is checked by a TLS connection or by asking the programs; the
// first that does not come true ends the demonstration with exit status 1.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/certctl/certctl/internal/testca"
	"github.com/certctl/certctl/internal/testca/pebble"
)

const (
	internalName = "internal.demo.example"
	publicName   = "public.demo.example"
	orderedName  = "ordered.demo.example"

	// Lifetimes so short that a renewal can be seen: what the built-in CA issued
	// is renewed at half, what Pebble issued when Pebble suggests it, and that may
	// be at any point of its life.
	internalLifetime = 90 * time.Second
	publicLifetime   = 60 * time.Second
	renewalNear      = 10 * time.Second
)

func main() {
	// A terminal that is closed, and a reader of a pipe that has seen enough, end
	// the demonstration as Ctrl-C does: what it made, keys among it, is removed.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	os.Exit(run(ctx))
}

func run(ctx context.Context) int {
	dir, err := os.MkdirTemp("", "certctl-demo-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s := newStage(dir)
	err = play(ctx, s)
	interrupted := ctx.Err() != nil
	if err != nil && !interrupted {
		s.failed(err)
	}
	s.clear()
	switch {
	case interrupted && s.complete:
		return 0
	case interrupted:
		fmt.Println("\ninterrupted; everything was stopped and removed")
		return 130
	case err != nil:
		return 1
	}
	return 0
}

// play is the demonstration, from the first program to the last.
func play(ctx context.Context, s *stage) error {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	ports, err := testca.Ports(1)
	if err != nil {
		return err
	}
	c := &cast{stage: s, bin: bin, server: fmt.Sprintf("127.0.0.1:%d", ports[0])}

	s.act("An authority at which every order waits for a person: DigiCert, played here")
	if c.slow, err = startSlowCA(ctx, s); err != nil {
		return err
	}
	s.saw("it answers at %s, and orders are approved at %s", c.slow.URL, c.slow.page)

	s.act("A coordinator, with an account there and else its defaults (and short lifetimes, to see renewals)")
	if err := c.startCoordinator(ctx); err != nil {
		return err
	}
	if err := c.login(ctx); err != nil {
		return err
	}
	token, err := c.createToken(ctx)
	if err != nil {
		return err
	}

	s.act("An ACME CA (Pebble) and a web server with placeholder certificates")
	if err := os.Mkdir(s.path("pebble"), 0o700); err != nil {
		return err
	}
	ca, err := pebble.Start(ctx, pebble.Options{
		Dir:      s.path("pebble"),
		Profiles: map[string]pebble.Profile{"default": {Description: "short", Validity: publicLifetime}},
	})
	if err != nil {
		return fmt.Errorf("start Pebble: %w", err)
	}
	s.onClear(ca.Close)
	s.saw("Pebble answers at %s", ca.DirectoryURL)
	site, err := startWeb(ctx, s)
	if err != nil {
		return err
	}
	c.web = site
	s.saw("%s serves %s, %s and %s at https://%s", site.Kind, internalName, publicName, orderedName, site.Address)

	s.act("A host: its agent enrols with the token and starts")
	if err := c.writeAgentConfig(ca); err != nil {
		return err
	}
	if err := c.enroll(ctx, token); err != nil {
		return err
	}
	if err := c.startAgent(ctx); err != nil {
		return err
	}

	s.act("Two certificates are issued, deployed, and seen on the wire")
	internal, err := c.awaitServed(ctx, "internal", internalName, "", 40*time.Second)
	if err != nil {
		return err
	}
	s.saw("the coordinator's built-in CA issued %s; %s serves it", internal, site.Kind)
	public, err := c.awaitServed(ctx, "public", publicName, "", 40*time.Second)
	if err != nil {
		return err
	}
	s.saw("Pebble issued %s; %s serves it", public, site.Kind)
	for _, certificate := range []string{"internal", "public"} {
		if _, err := c.awaitReport(ctx, certificate, "", 15*time.Second); err != nil {
			return err
		}
	}
	s.saw("the coordinator's report has both serials")
	if err := c.show(ctx, "at the coordinator", c.program("certctl"), "certificates", "list"); err != nil {
		return err
	}

	s.act("A third one is ordered at the slow authority, and waits there")
	waiting, err := c.placed(ctx)
	if err != nil {
		return err
	}

	s.act("Meanwhile the others are renewed: at half of a short life, and when the ACME CA suggests it")
	first := public
	if public, err = c.awaitServed(ctx, "public", publicName, public, publicLifetime); err != nil {
		return err
	}
	s.saw("renewed by ACME: %s is served now, %s was before", public, first)
	first = internal
	if internal, err = c.awaitServed(ctx, "internal", internalName, internal, internalLifetime); err != nil {
		return err
	}
	s.saw("renewed by the built-in CA: %s is served now, %s was before", internal, first)
	if _, err := c.awaitReport(ctx, "internal", first, 15*time.Second); err != nil {
		return err
	}

	s.act("The order has waited all the while. Somebody approves it")
	if err := c.approved(ctx, waiting); err != nil {
		return err
	}

	s.act("The coordinator stops, a few seconds before the next renewal. The host goes on")
	// An agent that is cut off knocks at longer and longer intervals: a short
	// absence is caught up with soon. A suggestion to renew at once passes by
	// without a moment before it, so that more than one life may have to be seen.
	if err := c.awaitRenewalNear(ctx, "public", renewalNear, 2*publicLifetime); err != nil {
		return err
	}
	if err := c.stopCoordinator(ctx); err != nil {
		return err
	}
	s.saw("the coordinator is gone: nobody listens at %s", c.server)
	// What is served now may be newer than what was seen above.
	if public, err = c.awaitServed(ctx, "public", publicName, "", 10*time.Second); err != nil {
		return err
	}
	first = public
	if public, err = c.awaitServed(ctx, "public", publicName, public, publicLifetime); err != nil {
		return err
	}
	s.saw("renewed by ACME without the coordinator: %s is served now, %s was before", public, first)
	if err := c.awaitCutOff(ctx, 20*time.Second); err != nil {
		return err
	}
	s.saw("the agent says that it is cut off, and until when its host is safe")

	s.act("The coordinator comes back. Its report catches up")
	if err := c.startCoordinator(ctx); err != nil {
		return err
	}
	reported, err := c.awaitReport(ctx, "public", first, time.Minute)
	if err != nil {
		return err
	}
	// Whatever is in service by now: the renewal of that time is a fact that came late.
	if err := c.awaitFact(ctx, public, time.Minute); err != nil {
		return err
	}
	s.saw("the journal has the renewal %s, which the host kept until the coordinator was back", public)
	if reported == public {
		s.saw("the report has %s, which was issued while the coordinator was away", public)
	} else {
		s.saw("the report has %s, which is in service now; %s, issued while the coordinator was away, is replaced already", reported, public)
	}
	if err := c.show(ctx, "at the coordinator", c.program("certctl"), "certificates", "list"); err != nil {
		return err
	}
	if err := c.show(ctx, "and its agents", c.program("certctl"), "agents", "list"); err != nil {
		return err
	}

	s.end()
	if os.Getenv("DEMO_EXIT") != "" {
		return nil
	}
	return c.linger(ctx)
}

// errNotYet says that something has not come true yet.
var errNotYet = errors.New("not yet")
