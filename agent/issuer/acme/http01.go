package acme

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/mholt/acmez/v3/acme"

	"github.com/certctl/certctl/agent/issuer"
	"github.com/certctl/certctl/shared/settings"
)

// challengePath is where the CA looks for a token (RFC 8555 section 8.3).
const challengePath = "/.well-known/acme-challenge/"

// HTTP01 answers http-01 challenges on a port of its own, open only while it is
// needed.
type HTTP01 struct {
	// Listen is the address, ":80" if empty. The CA always connects to port 80:
	// another port makes sense only behind a redirection.
	Listen string
}

// ChallengeType is "http-01".
func (HTTP01) ChallengeType() string { return challengeHTTP01 }

func (s HTTP01) validate() error { return checkListen("http-01", s.Listen) }

func (s HTTP01) presenter(l *Listeners) presenter {
	address := s.Listen
	if address == "" {
		address = ":80"
	}
	return &http01{listeners: l, address: address}
}

func checkListen(kind, address string) error {
	if address == "" {
		return nil
	}
	if err := settings.CheckListen(address); err != nil {
		return fmt.Errorf("%s listen address: %w", kind, err)
	}
	return nil
}

type http01 struct {
	listeners *Listeners
	address   string
}

func (p *http01) present(ctx context.Context, challenge acme.Challenge) error {
	return p.listeners.http.add(ctx, p.address, challenge.Token, challenge.Token, challenge.KeyAuthorization)
}

func (p *http01) withdraw(_ context.Context, challenge acme.Challenge) error {
	p.listeners.http.remove(p.address, challenge.Token, challenge.Token)
	return nil
}

func newHTTP01Server(find func(token string) (string, bool)) *http.Server {
	return &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, isChallenge := strings.CutPrefix(r.URL.Path, challengePath)
		keyAuthorization, known := find(token)
		if !isChallenge || !known || (r.Method != http.MethodGet && r.Method != http.MethodHead) {
			http.NotFound(w, r)
			return
		}
		// RFC 8555 section 8.3: the resource is of type application/octet-stream.
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write([]byte(keyAuthorization))
	})}
}

// HTTP01Webroot answers http-01 challenges with files below the document root of
// a web server that runs anyway.
type HTTP01Webroot struct {
	// Path is the document root, an absolute path of an existing directory. The
	// files go into .well-known/acme-challenge below it, and links there may not
	// lead out of it.
	Path string
}

// ChallengeType is "http-01".
func (HTTP01Webroot) ChallengeType() string { return challengeHTTP01 }

func (s HTTP01Webroot) validate() error {
	if !filepath.IsAbs(s.Path) {
		return fmt.Errorf("http-01 webroot %q: want an absolute path, the document root of the web server", s.Path)
	}
	return nil
}

func (s HTTP01Webroot) presenter(*Listeners) presenter { return &webroot{root: s.Path} }

type webroot struct{ root string }

// Both are below the document root, which the program that serves it can often
// change. So everything goes through an os.Root: a link there cannot lead the
// agent, which may be root, to another place.
const (
	wellKnown    = ".well-known"
	challengeDir = wellKnown + "/acme-challenge"
)

func (p *webroot) present(_ context.Context, challenge acme.Challenge) error {
	// Making the document root itself would hide that it is misspelt.
	root, err := os.OpenRoot(p.root)
	if err != nil {
		return p.fault(err)
	}
	defer func() { _ = root.Close() }()
	for _, dir := range []string{wellKnown, challengeDir} {
		if err := makeReadable(root, dir); err != nil {
			return p.fault(err)
		}
	}
	if err := showFile(root, path.Join(challengeDir, challenge.Token), challenge.KeyAuthorization); err != nil {
		return p.fault(err)
	}
	return nil
}

// makeReadable makes a directory that the web server can read, whatever the
// umask. One that is there stays as it is.
func makeReadable(root *os.Root, dir string) error {
	err := root.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return root.Chmod(dir, 0o755)
}

// showFile writes beside and renames, so that the web server never serves a
// part. The text is no secret, and is not needed after a crash.
func showFile(root *os.Root, name, text string) error {
	temp := name + ".tmp"
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	return root.Rename(temp, name)
}

func (p *webroot) withdraw(_ context.Context, challenge acme.Challenge) error {
	root, err := os.OpenRoot(p.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return p.fault(err)
	}
	defer func() { _ = root.Close() }()
	if err := root.Remove(path.Join(challengeDir, challenge.Token)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p.fault(err)
	}
	return nil
}

func (p *webroot) fault(err error) error {
	return &issuer.Error{
		Class: issuer.ClassConfig,
		Err:   fmt.Errorf("http-01 webroot: %w", err),
		Mend:  "make " + p.root + " the document root of the web server and writable for certctl-agent",
	}
}
