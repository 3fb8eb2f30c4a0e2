package api

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/coordinator/ratelimit"
	"github.com/certctl/certctl/shared/wire"
)

// Bounds of what a gate remembers, and of how often an address may come without a good
// token: so many times, and then so often a second.
const (
	gatedTokens    = 100_000
	gatedAddresses = 10_000
	strangersBurst = 50
	strangersRate  = 1
)

// unchangedPart is what of the price of a request is given back if the answer is that
// nothing has changed, which costs next to nothing.
const unchangedPart = 0.9

// Reasons why a gate refuses a request.
const (
	RefusedRate         = "rate"         // the token is used too often
	RefusedAddress      = "address"      // too many requests without a good token from there
	RefusedUnauthorized = "unauthorized" // no good token
	RefusedRole         = "role"
	RefusedScope        = "scope"
)

// RefusedReasons are all of them.
var RefusedReasons = []string{RefusedRate, RefusedAddress, RefusedUnauthorized, RefusedRole, RefusedScope}

// Gate bounds how often a token is used at this node, and how often an address comes
// without a good one. It is safe for concurrent use.
type Gate struct {
	tokens, strangers *ratelimit.Limiter
	refused           func(reason string)
}

// NewGate makes a gate that lets each token make so many requests a second, after a
// burst; a rate of 0 bounds none. refused, unless it is nil, is told of each request
// that is refused.
func NewGate(rate, burst int, refused func(reason string)) *Gate {
	if refused == nil {
		refused = func(string) {}
	}
	return &Gate{
		tokens: ratelimit.New(rate, burst, gatedTokens), strangers: ratelimit.New(strangersRate, strangersBurst, gatedAddresses),
		refused: refused,
	}
}

// openGate bounds nothing.
func openGate() *Gate {
	g := NewGate(0, 0, nil)
	g.strangers = g.tokens
	return g
}

// addressOf is whose requests are counted together: an address of IPv4, and what one
// customer has of IPv6. Requests that another node has passed on are that node's.
func addressOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	address = address.Unmap().WithZone("")
	if address.Is6() {
		if network, err := address.Prefix(64); err == nil {
			address = network.Addr()
		}
	}
	return address.String()
}

// judged notes what became of a request's token, and bounds how often a good one is used.
// Whoever has a good token comes in, whatever others do that come from the same address:
// behind a load balancer that is everybody.
func (g *Gate) judged(remote string, token *fleet.APIToken, refusal *Problem, now time.Time) *Problem {
	if refusal != nil && refusal.Code == wire.CodeUnauthorized {
		return g.stranger(remote, refusal, now)
	}
	if wait, ok := g.tokens.Take(token.ID, now); !ok {
		g.refused(RefusedRate)
		return tooMany(fmt.Sprintf("the token %q makes more requests than this node answers one (api.rate)", token.Name), wait)
	}
	if refusal != nil {
		g.refused(RefusedRole)
	}
	return refusal
}

// stranger is the answer to a request without a good token.
func (g *Gate) stranger(remote string, refusal *Problem, now time.Time) *Problem {
	key := addressOf(remote)
	wait, ok := g.strangers.Take(key, now)
	if ok {
		g.refused(RefusedUnauthorized)
		return refusal
	}
	g.refused(RefusedAddress)
	p := tooMany(fmt.Sprintf("too many requests without a good token have come from %s", key), wait)
	p.Mend = "use a token that is good; others that come from there are looked at again after the pause"
	return p
}

// tooMany is the answer to who comes too often.
func tooMany(detail string, wait time.Duration) *Problem {
	p := &Problem{*problem.Later(wire.CodeRateLimited, detail, wait)}
	p.Mend = "send the request again after the pause, and make fewer: ask for larger pages, and with If-None-Match for what may be unchanged"
	return p
}

// Guard lets requests through to a handler that is not an operation of the API, if
// their token has a role, and no scope: what the handler tells of, it does not know. How
// often a good token comes is not bounded.
func (g *Gate) Guard(state func() *fleet.State, now func() time.Time, role fleet.Role, next http.Handler) http.Handler {
	return g.guard(state, now, role, false, next)
}

// guard is Guard, for tokens with a scope too if they are let in.
func (g *Gate) guard(state func() *fleet.State, now func() time.Time, role fleet.Role, scoped bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header, at := r.Header.Get("Authorization"), now()
		token, _, refusal := identify(state().View(), header, at)
		switch {
		case refusal != nil:
			refusal = g.stranger(r.RemoteAddr, refusal, at)
		case !token.Role.Includes(role):
			refusal = lacks(token, role)
			g.refused(RefusedRole)
		case !scoped && !token.Scope.IsZero():
			refusal = tooWide(token)
			g.refused(RefusedScope)
		}
		if refusal == nil {
			next.ServeHTTP(w, r)
			return
		}
		if refusal.Status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", challenge)
		}
		problem.Write(w, r, &refusal.Problem)
	})
}
