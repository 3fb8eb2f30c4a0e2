//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/control"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/internal/testca/pebble"
	"github.com/certctl/certctl/shared/pki"
)

// An agent is killed again and again while it obtains, deploys and renews. It
// always goes on: each renewal has one certificate, the authorities have no
// more on record than the agent has put into service, and what nginx serves is
// good at every moment.
func TestKillAgent(t *testing.T) {
	t.Parallel()
	kills := times(20, 200)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	ca := pebble.Run(t, pebble.Options{
		NonceReject: 10,
		Profiles:    map[string]pebble.Profile{"short": {Description: "short", Validity: time.Minute}},
	})
	var names []string
	for i := range 5 {
		names = append(names, fmt.Sprintf("www%d.example", i))
	}
	web := startWeb(t, names...)
	c := startCoordinator(t, "CERTCTL_CA_LEAF_LIFETIME=1m")
	var certificates []section
	for i, name := range names {
		certificates = append(certificates, certificate(
			fmt.Sprintf("www%d", i), []string{"pebble", "coordinator"}[i%2], name, deployTo(web, i)))
	}
	a := newAgent(t, "the agent", section{"issuers": section{"pebble": acmeIssuer(ca)}, "certificates": certificates})
	a.enroll(c, "*.example")

	prober := startProber(web, names...)
	for range kills {
		a.start()
		life := time.Duration(20+random.IntN(1800)) * time.Millisecond
		ended, cancel := context.WithTimeout(t.Context(), life)
		if random.IntN(2) == 0 {
			// A renewal that somebody asks for, if the agent answers in time.
			forceRenewal(ended, a, fmt.Sprintf("www%d", random.IntN(len(names))))
		}
		<-ended.Done()
		cancel()
		require.True(t, a.running(), "the agent ended by itself")
		a.kill()
	}
	a.startAndAwait()

	var converged *control.Status
	var ledger pebble.Ledger
	var brokered []string
	await(t, 3*time.Minute, "the agent has come to rest, and the books agree", func() (err error) {
		ledger = ca.Ledger()
		if converged, err = a.tryStatus(); err != nil {
			return err
		}
		if err := settled(converged); err != nil {
			return err
		}
		brokered = issuedByCoordinator(c, a)
		return booksAgree(converged, ledger, brokered, ca.Ledger())
	})
	assert.LessOrEqual(t, ledger.Orders-len(ledger.Issued), kills, "an order is opened in vain at most once for each crash")

	looks, again, err := prober.stop()
	t.Logf("%d kills; Pebble: %d orders, %d certificates; built-in CA: %d; nginx: %d looks, %d repeated",
		kills, ledger.Orders, len(ledger.Issued), len(brokered), looks, again)
	counts.Report(t, "agent-kills", kills, "kill -9 of the real agent while it renewed from Pebble and the built-in CA, each survived")
	counts.Report(t, "agent-kills-duplicate-certificates", surplus(converged, ledger, brokered),
		"certificates that an authority issued and no renewal put into service")
	counts.Report(t, "agent-kills-mismatched-pairs", wrong(err),
		fmt.Sprintf("of %d looks at nginx, those that met no, an expired or another pair", looks))
	require.NoError(t, err, "what nginx served")
	assert.GreaterOrEqual(t, looks, kills, "a look for each crash, however busy the machine is")
	for i, name := range names {
		// It may be at the next renewal, between nginx's reload and the record of it.
		await(t, time.Minute, "nginx serves what the agent says", func() error {
			leaf, err := servedLeaf(t.Context(), web, name)
			if err != nil {
				return err
			}
			own, err := a.certificate(fmt.Sprintf("www%d", i))
			if served := pki.Fingerprint(leaf); err == nil && served != own.Fingerprint {
				err = fmt.Errorf("%s is served %s, and the agent says %s", name, served, own.Fingerprint)
			}
			return err
		})
	}
	require.NoError(t, eventsInOrder(c, a))

	a.stop()
	assert.Empty(t, temporaries(t, a.state), "temporary files in the state directory")
	assert.Empty(t, temporaries(t, filepath.Dir(web.ConfigPath())), "temporary files beside nginx's")
}

// forceRenewal asks the agent to renew, as soon as it answers.
func forceRenewal(ctx context.Context, a *agent, name string) {
	for ctx.Err() == nil {
		client, err := control.Dial(ctx, filepath.Join(a.home, "a.sock"))
		if err != nil {
			pause(ctx, 10*time.Millisecond)
			continue
		}
		_, _ = client.Renew(ctx, name) // it may not get to answer
		client.Close()
		return
	}
}

// issuedByCoordinator are the orders of the agent that the built-in CA has
// answered with a certificate.
func issuedByCoordinator(c *coordinator, a *agent) []string {
	var orders []string
	for _, fact := range c.facts(a.id) {
		if fact.Kind == "order.issued" {
			orders = append(orders, fact.Object)
		}
	}
	return orders
}

// booksAgree compares what the agent says it has put into service with what the
// authorities say they have issued. before and after enclose the status.
func booksAgree(status *control.Status, before pebble.Ledger, brokered []string, after pebble.Ledger) error {
	if len(before.Issued) != len(after.Issued) {
		return errors.New("a renewal came between")
	}
	renewals := make(map[string]int)
	for i := range status.Certificates {
		renewals[status.Certificates[i].Issuer] += int(status.Certificates[i].Renewals)
	}
	if n := len(after.Issued); renewals["pebble"] != n {
		return fmt.Errorf("%d certificates of Pebble were put into service, and it issued %d", renewals["pebble"], n)
	}
	if n := len(brokered); renewals["coordinator"] != n {
		return fmt.Errorf("%d certificates of the built-in CA were put into service, and it issued %d", renewals["coordinator"], n)
	}
	return nil
}

// surplus is how many more certificates were issued than were put into service.
func surplus(status *control.Status, ledger pebble.Ledger, brokered []string) int {
	issued := len(ledger.Issued) + len(brokered)
	for i := range status.Certificates {
		issued -= int(status.Certificates[i].Renewals)
	}
	return issued
}

// wrong counts what the prober must not have seen.
func wrong(err error) int {
	if err == nil {
		return 0
	}
	return len(err.(interface{ Unwrap() []error }).Unwrap()) // the prober joins them
}

// temporaries are files that only live for a moment and are still there.
func temporaries(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if !entry.IsDir() && (strings.HasPrefix(name, ".certctl-") || strings.HasSuffix(name, ".tmp") || strings.HasSuffix(name, ".new")) {
			found = append(found, path)
		}
		return nil
	}))
	return found
}
