package clock

import (
	"net/http"
	"time"
)

// Transport returns next with the time: it learns from the Date of every answer
// that came over verified TLS, and when a connection fails for nothing but the
// dates of the server's certificate, it probes that server and, if that was of
// use, tries once more. next has to verify by Now (tls.Config.Time), and verify
// and dial are as for Probe. name stands for the servers that next reaches.
func (c *Clock) Transport(name string, verify Verify, dial Dial, next http.RoundTripper) http.RoundTripper {
	return &transport{clock: c, name: name, verify: verify, dial: dial, next: next}
}

type transport struct {
	clock  *Clock
	name   string
	verify Verify
	dial   Dial
	next   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.once(request)
	if !OutOfTime(err) || request.Body != nil && request.Body != http.NoBody && request.GetBody == nil {
		return response, err
	}
	ctx := request.Context()
	t.clock.cfg.Log.Warn("a server's certificate is not valid by this host's time; it is asked what time it is", "server", request.URL.Host, "err", err)
	if askErr := t.clock.Probe(ctx, t.name, "https://"+request.URL.Host+"/", t.verify, t.dial); askErr != nil {
		t.clock.cfg.Log.Warn("a server's time is not believed", "server", request.URL.Host, "err", askErr)
		return nil, err
	}
	again := request.Clone(ctx)
	if request.GetBody != nil {
		if again.Body, err = request.GetBody(); err != nil {
			return nil, err
		}
	}
	return t.once(again)
}

func (t *transport) once(request *http.Request) (*http.Response, error) {
	sent := t.clock.Stamp()
	response, err := t.next.RoundTrip(request)
	if err != nil || response.TLS == nil || len(response.TLS.VerifiedChains) == 0 {
		return response, err
	}
	if at, err := dateOf(response); err == nil {
		t.clock.Observe(t.name, sent, at, time.Second)
	}
	return response, nil
}
