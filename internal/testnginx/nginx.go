// Package testnginx starts a real nginx for tests and for the demo: from a
// directory of its own, on ports that the kernel chose, without touching the
// machine's nginx, its configuration or its service.
//
// It needs nginx 1.19.5 or later (scripts/setup/nginx.sh installs it) and a
// Unix system.
package testnginx

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// ErrNotInstalled says that this machine has no nginx.
var ErrNotInstalled = errors.New("nginx is not installed: run scripts/setup/nginx.sh")

const (
	// They are for a machine that has much else to do.
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
	probeTimeout = 30 * time.Second
)

// Options say what nginx serves.
type Options struct {
	// Sites are told apart by their names (RFC 6066 section 3); the first one
	// also answers clients that send none. At least one.
	Sites []Site
}

// Site is one certificate and who it is for.
type Site struct {
	Name string // DNS name
	// Certificate and Key are the PEM files that nginx reads, absolute. Empty
	// means fullchain.pem and privkey.pem in the directory tls/<Name> below the
	// server's. Where neither file exists, Start writes a self-signed
	// placeholder with a lifetime of a year, for nginx refuses to start without.
	Certificate string
	Key         string
}

// Server is a running nginx. Its methods may be called from several goroutines.
type Server struct {
	binary  string
	dir     string
	address string
	sites   []Site
	output  *os.File
	process *os.Process

	exited  chan struct{} // closed once the master process was waited for
	exitErr error         // set before exited is closed
	stop    sync.Once
	stopErr error
}

// Start runs nginx in dir, which must exist and be absolute, and returns when it serves.
// The caller must Stop it. On Linux it also ends with the process that started it.
func Start(dir string, options Options) (*Server, error) {
	binary, err := find()
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("directory %q of nginx: must be absolute", dir)
	}
	sites, err := prepareSites(dir, options.Sites)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for nginx: %w", err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return nil, fmt.Errorf("taking the listening socket for nginx: %w", err)
	}
	defer socket.Close()

	s := &Server{binary: binary, dir: dir, address: listener.Addr().String(), sites: sites, exited: make(chan struct{})}
	if err := s.writeConfig(); err != nil {
		return nil, err
	}
	if err := s.launch(socket); err != nil {
		return nil, err
	}
	// From here on a connection waits in the socket's queue until nginx takes
	// it, or is reset if nginx ends: only nginx may hold the socket.
	socket.Close()
	listener.Close()
	if err := s.awaitFirstAnswer(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Address is where nginx serves TLS, as host:port.
func (s *Server) Address() string { return s.address }

// ConfigPath is nginx's configuration file; a test may change it before a check or a reload.
func (s *Server) ConfigPath() string { return filepath.Join(s.dir, "nginx.conf") }

// LogPath is where nginx writes its errors.
func (s *Server) LogPath() string { return filepath.Join(s.dir, "error.log") }

// Site returns the i-th site with its file names filled in.
func (s *Server) Site(i int) Site { return s.sites[i] }

// CheckArgv is the command that checks the configuration and the files that it names.
func (s *Server) CheckArgv() []string { return append(s.argv(), "-t", "-q") }

// ReloadArgv is the command that makes nginx read its files anew. It returns
// before nginx has done so.
func (s *Server) ReloadArgv() []string { return append(s.argv(), "-s", "reload") }

// Fingerprint returns the SHA-256 of the leaf certificate that a new connection
// for serverName is shown, as 64 lower-case hexadecimal digits.
func (s *Server) Fingerprint(ctx context.Context, serverName string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{
		ServerName:         serverName,
		InsecureSkipVerify: true, // it is looked at, not trusted
		MinVersion:         tls.VersionTLS12,
	}}
	conn, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return "", fmt.Errorf("connecting to nginx at %s: %w", s.address, err)
	}
	defer conn.Close()
	leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	sum := sha256.Sum256(leaf.Raw)
	return hex.EncodeToString(sum[:]), nil
}

// Stop ends nginx and waits until it has ended. Later calls return what the first did.
func (s *Server) Stop() error {
	s.stop.Do(func() {
		defer s.output.Close()
		// An error here means that it has ended already, which the wait shows.
		_ = s.process.Signal(syscall.SIGTERM)
		if s.waitExit(stopTimeout) {
			return
		}
		_ = s.process.Kill()
		if !s.waitExit(stopTimeout) {
			s.stopErr = fmt.Errorf("nginx (process %d) does not end", s.process.Pid)
		}
	})
	return s.stopErr
}

func (s *Server) argv() []string {
	return []string{s.binary, "-p", s.dir, "-c", s.ConfigPath(), "-e", s.LogPath()}
}

func (s *Server) launch(socket *os.File) error {
	output, err := os.Create(filepath.Join(s.dir, "output.log"))
	if err != nil {
		return fmt.Errorf("creating nginx's output file: %w", err)
	}
	argv := append(s.argv(), "-g", "daemon off;")
	// nginx takes over the sockets that this variable lists, as it does when its
	// binary is replaced, and matches them with its configuration by address.
	// That is how it can serve on a port which the kernel chose without anybody
	// else getting the port in between.
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it lives until Stop, not for one call
	cmd.Env = append(os.Environ(), "NGINX=3;")
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = processAttributes()
	if err := cmd.Start(); err != nil {
		output.Close()
		return fmt.Errorf("starting nginx: %w", err)
	}
	s.output, s.process = output, cmd.Process
	go func() {
		s.exitErr = cmd.Wait()
		close(s.exited)
	}()
	return nil
}

// awaitFirstAnswer returns when nginx has completed a handshake, or with what
// it printed when it ended instead.
func (s *Server) awaitFirstAnswer(ctx context.Context) error {
	_, err := s.Fingerprint(ctx, s.sites[0].Name)
	if err == nil {
		return nil
	}
	// A reset connection is what the end of nginx looks like from here.
	if s.waitExit(10 * time.Second) {
		err = fmt.Errorf("nginx ended at once: %w", s.exitErr)
	}
	printed, readErr := os.ReadFile(s.output.Name())
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	return fmt.Errorf("%w; it printed: %s", err, printed)
}

func (s *Server) waitExit(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.exited:
		return true
	case <-timer.C:
		return false
	}
}

// find looks for nginx in PATH and where distributions put it, which is not
// always in the PATH of an ordinary user.
func find() (string, error) {
	for _, name := range []string{"nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNotInstalled
}
