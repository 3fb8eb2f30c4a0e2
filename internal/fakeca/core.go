package fakeca

import (
	"crypto/x509"
	"errors"
	"hash/fnv"
	"math/big"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// validity of a certificate whose order does not say how long.
const validity = 90 * 24 * time.Hour

// Config of a Core. Everything may be left out.
type Config struct {
	// Name is the authority's, within its certificates.
	Name string
	// Seed decides, with Name, what faults by rate come when and which serial numbers
	// there are; the same ones, the same faults.
	Seed uint64
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Approval has every order wait for a person.
	Approval bool
	// Delay is from the acceptance or the approval of an order to its certificate;
	// 0 issues at once. Up to Spread is added, by Seed.
	Delay, Spread time.Duration
	// Hidden is how long a new order is not found by who does not know its name.
	Hidden time.Duration
	// Validity of a certificate whose order does not say; 0 is 90 days.
	Validity time.Duration
	// Rates are how often which fault comes by itself.
	Rates Rates
	// Limits are the requests that the authority takes; more of them are answered
	// with status 429.
	Limits []Limit
	// Seen is told of every request before anything else; it may be called by more
	// than one goroutine at a time. nil is told nothing.
	Seen func(op Op, r *http.Request)
}

// Limit is how many requests are taken within any span of time of a length.
type Limit struct {
	Requests int
	Within   time.Duration
}

// Core is an authority without a dialect. It is safe for concurrent use; what it
// hands out are copies.
type Core struct {
	config Config

	mu        sync.Mutex
	random    *rand.Rand
	authority *authority
	orders    []*Order // in the order in which they were accepted
	byID      map[string]*Order
	bySerial  map[string]*Order
	behaviour Behaviour
	scripts   []*script
	recent    []time.Time // of the requests within the longest limit
	counts    map[Op]int
}

// New makes an authority with new keys and an empty ledger.
func New(c Config) *Core {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Validity == 0 {
		c.Validity = validity
	}
	// Two authorities with the same seed have different serial numbers.
	name := fnv.New64a()
	_, _ = name.Write([]byte(c.Name))
	core := &Core{config: c, random: rand.New(rand.NewPCG(c.Seed, name.Sum64())), byID: map[string]*Order{}, bySerial: map[string]*Order{}, counts: map[Op]int{}}
	var err error
	// Keys and signatures of sound templates: nothing but a broken machine fails here.
	if core.authority, err = newAuthority(c.Name, c.Now(), core.serial); err != nil {
		panic(err)
	}
	return core
}

// serial is a positive serial number of 16 octets. The lock is held, or the core is
// not in use yet.
func (c *Core) serial() *big.Int {
	octets := make([]byte, 16)
	for i := range octets {
		octets[i] = byte(c.random.Uint32())
	}
	octets[0] = octets[0]&0x7f | 0x40
	return new(big.Int).SetBytes(octets)
}

// NewSerial draws a serial number, for Placement.
func (c *Core) NewSerial() *big.Int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.serial()
}

// Now is the authority's clock.
func (c *Core) Now() time.Time { return c.config.Now() }

// Root is what vouches for every certificate.
func (c *Core) Root() *x509.Certificate { return c.authority.root }

// Issuers are the intermediates, the one that signs now first, and the root last.
func (c *Core) Issuers() []*x509.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := slices.Clone(c.authority.issuing)
	slices.Reverse(list)
	return append(list, c.authority.root)
}

// Rotate has another intermediate sign from here on.
func (c *Core) Rotate() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.authority.rotate(c.Now())
}

// Errors of what is asked of an order.
var (
	ErrUnknown = errors.New("no such order")
	ErrState   = errors.New("the order is not in a state for that")
)
