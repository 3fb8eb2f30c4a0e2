package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"
)

// checker asks about one certificate at a time.
type checker struct {
	fetch  *fetcher
	lists  *lists
	now    func() time.Time
	public func(chain []*x509.Certificate) bool

	mu   sync.Mutex // guards down
	down map[string]silence
}

// silence is a responder that could not be reached a moment ago.
type silence struct {
	at  time.Time
	err error
}

func newChecker(fetch *fetcher, now func() time.Time, interval time.Duration, public func([]*x509.Certificate) bool) *checker {
	return &checker{fetch: fetch, lists: newLists(fetch, now, interval), now: now, public: public, down: make(map[string]silence)}
}

// finding is the outcome of one check.
type finding struct {
	answer
	source string // the place that answered, or failed last
	detail string // why it failed or was skipped
}

// of is check as the loop calls it.
func (c *checker) of(ctx context.Context, _ string, chain []*x509.Certificate) finding {
	return c.check(ctx, chain)
}

// check asks the responders that the leaf names, then the lists. What a responder
// does not know, a list may.
func (c *checker) check(ctx context.Context, chain []*x509.Certificate) finding {
	if why := unchecked(chain, c.now()); why != "" {
		return finding{answer: answer{result: ResultSkipped}, detail: why}
	}
	leaf, issuer := chain[0], chain[1]
	own := !c.public(chain)
	failed := finding{answer: answer{result: ResultFailed}}
	attempt := func(kind, at string, ask func() (answer, error)) (finding, bool) {
		a, err := ask()
		if err != nil {
			failed.source, failed.detail = at, fmt.Sprintf("%s %s: %v", kind, at, err)
			return finding{}, false
		}
		return finding{answer: a, source: at}, true
	}
	var unknown *finding
	for _, at := range places(leaf.OCSPServer) {
		found, ok := attempt("OCSP responder", at, func() (answer, error) { return c.ask(ctx, own, at, leaf, issuer) })
		switch {
		case ok && found.result != ResultUnknown:
			return found
		case ok && unknown == nil:
			found.detail = "the OCSP responder does not know the certificate"
			unknown = &found
		}
	}
	for _, at := range places(leaf.CRLDistributionPoints) {
		found, ok := attempt("revocation list", at, func() (answer, error) {
			l, err := c.lists.get(ctx, own, at, issuer)
			if err != nil {
				return answer{}, err
			}
			return l.about(leaf, issuer)
		})
		if ok {
			return found
		}
	}
	if unknown != nil {
		return *unknown
	}
	return failed
}

func (c *checker) ask(ctx context.Context, own bool, at string, leaf, issuer *x509.Certificate) (answer, error) {
	question, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return answer{}, fmt.Errorf("the question cannot be made: %w", err)
	}
	if err := c.silent(at); err != nil {
		return answer{}, err
	}
	body, err := c.fetch.ask(ctx, own, at, question)
	if err != nil {
		if ctx.Err() == nil {
			c.silence(at, err)
		}
		return answer{}, err
	}
	return readOCSP(body, leaf, issuer, c.now())
}

// silent is why a responder is left alone for a while: of those that hang, ten thousand
// certificates would hold up all others.
func (c *checker) silent(at string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, is := c.down[at]
	if age := c.now().Sub(s.at); !is || age < 0 || age >= failureLife {
		delete(c.down, at)
		return nil
	}
	return s.err
}

func (c *checker) silence(at string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.down) >= maxSources {
		clear(c.down)
	}
	c.down[at] = silence{at: c.now(), err: err}
}

// trustedByTheSystem reports whether a chain leads to one of the system's roots:
// its authority is one that strangers may get certificates from.
func trustedByTheSystem(now func() time.Time) func([]*x509.Certificate) bool {
	return func(chain []*x509.Certificate) bool {
		intermediates := x509.NewCertPool()
		for _, cert := range chain[1:] {
			intermediates.AddCert(cert)
		}
		_, err := chain[0].Verify(x509.VerifyOptions{
			Intermediates: intermediates, CurrentTime: now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		var unknown x509.UnknownAuthorityError
		var roots x509.SystemRootsError
		return !errors.As(err, &unknown) && !errors.As(err, &roots)
	}
}
