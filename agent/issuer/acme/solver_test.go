package acme

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/internal/testca"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/settings"
)

func challengeFor(token, name string) acme.Challenge {
	return acme.Challenge{Token: token, KeyAuthorization: token + ".thumbprint", Identifier: acme.Identifier{Type: identifierDNS, Value: name}}
}

func TestOrdersShareOnePort(t *testing.T) {
	port, err := testca.Port()
	require.NoError(t, err)
	address := loopback(port)
	listeners := NewListeners(nil)
	one, two := HTTP01{Listen: address}.presenter(listeners), HTTP01{Listen: address}.presenter(listeners)
	a, b := challengeFor("a", "a.example"), challengeFor("b", "b.example")

	require.NoError(t, one.present(t.Context(), a))
	require.NoError(t, two.present(t.Context(), b))
	assert.Equal(t, "a.thumbprint", fetch(t, address, "a"))
	assert.Equal(t, "b.thumbprint", fetch(t, address, "b"))
	assert.Equal(t, "", fetch(t, address, "c"))

	require.NoError(t, one.withdraw(t.Context(), a))
	assert.Equal(t, "", fetch(t, address, "a"))
	assert.Equal(t, "b.thumbprint", fetch(t, address, "b"), "still needed")
	require.NoError(t, two.withdraw(t.Context(), b))
	_, err = net.DialTimeout("tcp", address, time.Second)
	require.Error(t, err, "closed after the last")
	require.NoError(t, two.withdraw(t.Context(), b), "again is no error")
}

// fetch returns the key authorization, or "" if there is none.
func fetch(t *testing.T, address, token string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Get("http://" + address + challengePath + token)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusNotFound {
		return ""
	}
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body)
}

func TestOneNameHasOneTLSALPNAnswerAtATime(t *testing.T) {
	port, err := testca.Port()
	require.NoError(t, err)
	p := TLSALPN01{Listen: loopback(port)}.presenter(NewListeners(nil))
	first, second := challengeFor("one", "a.example"), challengeFor("two", "a.example")
	require.NoError(t, p.present(t.Context(), first))

	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.present(short, second), context.DeadlineExceeded)
	require.NoError(t, p.withdraw(t.Context(), second), "does not touch the other's answer")

	waiting := make(chan error, 1)
	go func() { waiting <- p.present(t.Context(), second) }()
	require.NoError(t, p.withdraw(t.Context(), first))
	require.NoError(t, <-waiting)
	require.NoError(t, p.withdraw(t.Context(), second))
}

// spy counts what is really shown.
type spy struct {
	shown, calls atomic.Int64
	fail         atomic.Bool
}

func (s *spy) present(context.Context, acme.Challenge) error {
	s.calls.Add(1)
	if s.fail.Load() {
		return errInjected
	}
	s.shown.Add(1)
	return nil
}

func (s *spy) withdraw(context.Context, acme.Challenge) error {
	s.shown.Store(0)
	return nil
}

func TestOrdersThatShareAChallengeShowItOnce(t *testing.T) {
	inner := &spy{}
	c := newCounted(inner)
	challenge := challengeFor("shared", "a.example")
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			assert.NoError(t, c.present(t.Context(), challenge))
			assert.Equal(t, int64(1), inner.shown.Load(), "shown while held")
			assert.NoError(t, c.withdraw(t.Context(), challenge))
		})
	}
	group.Wait()
	assert.Zero(t, inner.shown.Load())
	assert.Empty(t, c.uses)

	inner.fail.Store(true)
	require.ErrorIs(t, c.present(t.Context(), challenge), errInjected)
	inner.fail.Store(false)
	require.NoError(t, c.present(t.Context(), challenge), "a failure is not remembered")
	require.NoError(t, c.withdraw(t.Context(), challenge))
	require.NoError(t, c.withdraw(t.Context(), challenge))
	assert.Zero(t, inner.shown.Load())
	assert.Empty(t, c.uses)
}

func TestWebrootFaults(t *testing.T) {
	missing := HTTP01Webroot{Path: filepath.Join(t.TempDir(), "misspelt")}.presenter(nil)
	failure := requireClass(t, issuer.ClassConfig, missing.present(t.Context(), challengeFor("a", "a.example")))
	assert.Contains(t, failure.Mend, "document root")

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	requireClass(t, issuer.ClassConfig, HTTP01Webroot{Path: file}.presenter(nil).present(t.Context(), challengeFor("a", "a.example")))

	root := t.TempDir()
	p := HTTP01Webroot{Path: root}.presenter(nil)
	require.NoError(t, p.withdraw(t.Context(), challengeFor("a", "a.example")), "nothing there")
	require.NoError(t, p.present(t.Context(), challengeFor("a", "a.example")))
	text, err := os.ReadFile(filepath.Join(root, ".well-known", "acme-challenge", "a"))
	require.NoError(t, err)
	assert.Equal(t, "a.thumbprint", string(text))
}

func TestDNSHookFaults(t *testing.T) {
	challenge := challengeFor("a", "a.example")
	run := func(timeout time.Duration, command ...string) error {
		return DNS01Exec{Command: command, Timeout: timeout}.presenter(nil).present(t.Context(), challenge)
	}
	failure := requireClass(t, issuer.ClassConfig, run(0, "/bin/sh", "-c", "echo the zone is frozen >&2; exit 7"))
	assert.Contains(t, failure.Error(), "the zone is frozen")
	assert.Contains(t, failure.Error(), "_acme-challenge.a.example.")
	assert.Contains(t, failure.Mend, "by hand")

	failure = requireClass(t, issuer.ClassConfig, run(50*time.Millisecond, "/bin/sleep", "60"))
	assert.Contains(t, failure.Error(), "/bin/sleep")
	failure = requireClass(t, issuer.ClassConfig, run(100*time.Millisecond, "/bin/sh", "-c", "exec /bin/sleep 60"))
	assert.Contains(t, failure.Error(), "not done after 100ms")
	requireClass(t, issuer.ClassConfig, run(0, "/nonexistent/hook"))

	long := requireClass(t, issuer.ClassConfig, run(0, "/bin/sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo the end; exit 1"))
	assert.Less(t, len(long.Error()), 8<<10)
	assert.Contains(t, long.Error(), "the end")
}

// Whoever can write to the document root must not be able to send the agent to
// another place.
func TestWebrootDoesNotFollowLinksOutOfIt(t *testing.T) {
	for _, link := range []string{wellKnown, challengeDir} {
		root, elsewhere := t.TempDir(), t.TempDir()
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, link)), 0o755))
		require.NoError(t, os.Symlink(elsewhere, filepath.Join(root, link)))
		p, challenge := HTTP01Webroot{Path: root}.presenter(nil), challengeFor("a", "a.example")
		requireClass(t, issuer.ClassConfig, p.present(t.Context(), challenge))
		entries, err := os.ReadDir(elsewhere)
		require.NoError(t, err)
		assert.Empty(t, entries, link)

		victim := filepath.Join(elsewhere, "a")
		require.NoError(t, os.WriteFile(victim, nil, 0o600))
		_ = p.withdraw(t.Context(), challenge)
		assert.FileExists(t, victim)
	}

	// A link in place of the answer is replaced, and one within the root followed.
	root, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(root, "shared"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(root, wellKnown), 0o755))
	require.NoError(t, os.Symlink("../shared", filepath.Join(root, challengeDir)))
	for _, name := range []string{"a", "a.tmp"} {
		require.NoError(t, os.Symlink(victim, filepath.Join(root, "shared", name)))
	}
	p := HTTP01Webroot{Path: root}.presenter(nil)
	require.NoError(t, p.present(t.Context(), challengeFor("a", "a.example")))
	for path, want := range map[string]string{victim: "precious", filepath.Join(root, "shared", "a"): "a.thumbprint"} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, want, string(text))
	}
	require.NoError(t, p.withdraw(t.Context(), challengeFor("a", "a.example")))
	assert.NoFileExists(t, filepath.Join(root, "shared", "a"))
}

// A hook is somebody else's program: it gets no secret of the agent's, and
// nothing of it goes on when its time is up.
func TestDNSHookGetsNoSecretsAndLeavesNothingBehind(t *testing.T) {
	t.Setenv("CERTCTL_SOMETHING_SECRET", "hunter2")
	t.Setenv("HTTPS_PROXY", "http://user:hunter2@proxy.example")
	dir := t.TempDir()
	hook := func(script string, timeout time.Duration) error {
		return DNS01Exec{Command: []string{"/bin/sh", "-c", script}, Timeout: timeout}.presenter(nil).
			present(t.Context(), challengeFor("a", "a.example"))
	}
	require.NoError(t, hook("env >"+dir+"/env", 0))
	environment, err := os.ReadFile(filepath.Join(dir, "env"))
	require.NoError(t, err)
	assert.Contains(t, string(environment), "CERTCTL_ACME_NAME=_acme-challenge.a.example.")
	assert.NotContains(t, string(environment), "hunter2")

	fifo := filepath.Join(dir, "alive")
	require.NoError(t, exec.CommandContext(t.Context(), "mkfifo", fifo).Run())
	requireClass(t, issuer.ClassConfig, hook("(exec 3>"+fifo+"; sleep 60) >/dev/null 2>&1 & read line <"+fifo, 300*time.Millisecond))
	// The child held the pipe open for writing: reading it to its end is done
	// only when the child is gone.
	begun := time.Now()
	reader, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	defer func() { _ = reader.Close() }()
	_, err = io.ReadAll(reader)
	require.NoError(t, err)
	assert.Less(t, time.Since(begun), 30*time.Second, "a child of the hook went on")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = DNS01Exec{Command: []string{"true"}}.presenter(nil).present(ctx, challengeFor("a", "a.example"))
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, issuer.ClassRetry, issuer.Classify(err).Class, "a stop is no fault of the hook")
}

func TestRFC2136Faults(t *testing.T) {
	z := startZone(t, "zone.example.", "key.", "c2VjcmV0")
	challenge := challengeFor("a", "a.zone.example")
	key := func(secret string) *TSIG { return &TSIG{Name: "key", Secret: settings.NewSecret(secret)} }
	for name, test := range map[string]struct {
		solver DNS01RFC2136
		class  issuer.Class
		says   string
	}{
		"wrong secret": {DNS01RFC2136{Server: z.address, TSIG: key("d3Jvbmc="), Zone: "zone.example"}, issuer.ClassConfig, "TSIG key"},
		"unsigned":     {DNS01RFC2136{Server: z.address}, issuer.ClassConfig, "update policy"},
		"wrong zone":   {DNS01RFC2136{Server: z.address, TSIG: key("c2VjcmV0"), Zone: "example"}, issuer.ClassConfig, "set zone"},
		"nobody there": {DNS01RFC2136{Server: "127.0.0.1:1", Zone: "zone.example"}, issuer.ClassRetry, "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			failure := requireClass(t, test.class, test.solver.presenter(nil).present(t.Context(), challenge))
			assert.Contains(t, failure.Error(), test.says)
			assert.NotContains(t, failure.Error(), "c2VjcmV0")
			assert.Empty(t, z.records())
		})
	}
	t.Run("no such zone", func(t *testing.T) {
		p := DNS01RFC2136{Server: z.address, TSIG: key("c2VjcmV0")}.presenter(nil)
		failure := requireClass(t, issuer.ClassConfig, p.present(t.Context(), challengeFor("a", "a.elsewhere.example")))
		assert.Contains(t, failure.Error(), "no zone that holds _acme-challenge.a.elsewhere.example.")
	})
	t.Run("never visible", func(t *testing.T) {
		z.mu.Lock()
		z.mute = true
		z.mu.Unlock()
		p := DNS01RFC2136{Server: z.address, TSIG: key("c2VjcmV0"), PropagationTimeout: 300 * time.Millisecond}.presenter(nil)
		failure := requireClass(t, issuer.ClassConfig, p.present(t.Context(), challenge))
		assert.Contains(t, failure.Mend, "answers for the zone")
		require.NoError(t, p.withdraw(t.Context(), challenge))
		assert.Empty(t, z.records())
	})
}

func TestConfigProblemsAreNamed(t *testing.T) {
	_, err := New(Config{
		DirectoryURL: "http://ca.example/dir", Contact: []string{"not an address"},
		EAB: &EAB{HMACKey: settings.NewSecret("not/base64url!")}, OrdersPer10s: -1,
		Solver: DNS01RFC2136{Zone: "a..b", TTL: time.Millisecond, TSIG: &TSIG{Algorithm: "hmac-md5", Secret: settings.NewSecret("?")}},
	})
	require.Error(t, err)
	for _, part := range []string{
		"name is empty", "directory", "email", "terms_agreed", "eab.key_id", "eab.hmac_key", "limit",
		"server is empty", "zone", "ttl", "tsig_key_name", "tsig_algorithm", "tsig_secret", "Keys, State and Log",
	} {
		assert.ErrorContains(t, err, part)
	}
	assert.NotContains(t, err.Error(), "not/base64url!")
	for _, solver := range []Solver{
		nil, HTTP01{Listen: "80"}, TLSALPN01{Listen: "x"}, HTTP01Webroot{Path: "relative"},
		DNS01Exec{}, DNS01Exec{Command: []string{"x"}, Timeout: -1, PropagationWait: 2 * time.Hour},
	} {
		_, err := New(Config{Solver: solver})
		require.Error(t, err)
		if solver != nil {
			assert.ErrorContains(t, err, solver.ChallengeType())
		}
	}
}

func TestCheckNames(t *testing.T) {
	wildcard, address := pki.MustParseNames("*.a.example"), pki.MustParseNames("192.0.2.1")
	assert.ErrorContains(t, CheckNames(HTTP01{}, wildcard), "dns-01")
	assert.ErrorContains(t, CheckNames(HTTP01Webroot{}, wildcard), "dns-01")
	assert.ErrorContains(t, CheckNames(TLSALPN01{}, wildcard), "dns-01")
	assert.NoError(t, CheckNames(DNS01Exec{}, wildcard))
	assert.NoError(t, CheckNames(DNS01RFC2136{}, wildcard))
	assert.ErrorContains(t, CheckNames(DNS01RFC2136{}, address), "192.0.2.1")
	assert.NoError(t, CheckNames(TLSALPN01{}, address))
}

func TestReverseNames(t *testing.T) {
	// The examples of RFC 8738 section 6 and RFC 3596 section 2.5.
	assert.Equal(t, "1.2.0.192.in-addr.arpa", reverseName(netip.MustParseAddr("192.0.2.1")))
	assert.Equal(t, "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa",
		reverseName(netip.MustParseAddr("4321:0:1:2:3:4:567:89ab")))
}

func TestNoMoreEventsInAnySpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(10, 10*time.Second)
		var at []time.Time
		for n := range 35 {
			if n == 12 {
				require.NoError(t, backoff.Wait(t.Context(), 25*time.Second)) // a quiet spell must not save up events
			}
			require.NoError(t, w.wait(t.Context()))
			at = append(at, time.Now())
		}
		for n := 10; n < len(at); n++ {
			assert.GreaterOrEqual(t, at[n].Sub(at[n-10]), 10*time.Second, "event %d", n)
		}
		assert.Zero(t, at[21].Sub(at[12]), "ten at once after the quiet spell")

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		assert.True(t, errors.Is(w.wait(ctx), context.Canceled))
	})
}

func FuzzCheckToken(f *testing.F) {
	for _, seed := range []string{"", "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", "../../etc/passwd", "a/b", "a\\b", "a\x00", strings.Repeat("a", 257)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if checkToken(token) != nil {
			return
		}
		path := filepath.Join("/root", token)
		if filepath.Dir(path) != "/root" || filepath.Base(path) != token || len(token) > maxToken {
			t.Fatalf("token %q leaves its directory", token)
		}
	})
}
