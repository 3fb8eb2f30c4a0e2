// Package testpostgres starts real, throwaway PostgreSQL servers for tests: from a
// directory of their own, on a Unix socket in it, without touching the machine's
// PostgreSQL, its configuration or its service.
//
// It needs PostgreSQL 14 or later (scripts/setup/postgres.sh installs it) and a Unix
// system. PostgreSQL refuses to run as root: there its processes run as the user
// postgres, whom the packages of distributions make.
package testpostgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/certctl/certctl/shared/backoff"
)

// ErrNotInstalled says that this machine has no PostgreSQL.
var ErrNotInstalled = errors.New("PostgreSQL is not installed: run scripts/setup/postgres.sh")

const (
	// They are for a machine that has much else to do.
	startTimeout = 2 * time.Minute
	stopTimeout  = time.Minute
	pollInterval = 20 * time.Millisecond
	// port is only part of the socket's name: nothing listens on the network.
	port = 5432
)

// Options say what a server is like.
type Options struct {
	// Durable servers sync what they promise to keep. The others are for tests that
	// never kill them, and are faster.
	Durable bool
	// Password of both users; "" lets everybody in.
	Password string
	// Settings are added to the server's configuration.
	Settings map[string]string
	// Data is where the data directory is made, an existing directory; "" is beside
	// the socket.
	Data string
}

// User owns the databases, and Superuser the server.
const (
	User      = "certctl"
	Superuser = "postgres"
)

// Server is a PostgreSQL server, which may be running or not.
type Server struct {
	options Options
	bin     string
	dir     string // has the socket
	data    string
	as      account

	mu      sync.Mutex
	process *os.Process   // guarded by mu; nil while it does not run
	exited  chan struct{} // guarded by mu; closed when process was waited for
}

// Start makes a server and runs it. The caller must Close it. On Linux it also ends
// with the process that started it.
func Start(o Options) (_ *Server, err error) {
	s := &Server{options: o}
	if s.bin, err = find(); err != nil {
		return nil, err
	}
	if s.as, err = serverAccount(); err != nil {
		return nil, err
	}
	// The names of sockets are short; those of tests' own directories are not.
	if s.dir, err = os.MkdirTemp("", "certctl-pg-"); err != nil {
		return nil, fmt.Errorf("a directory for PostgreSQL: %w", err)
	}
	if s.data = filepath.Join(s.dir, "data"); o.Data != "" {
		s.data = filepath.Join(o.Data, "data")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.initialise(); err != nil {
		return nil, err
	}
	if err := s.Run(); err != nil {
		return nil, err
	}
	role := "create role " + User + " login"
	if o.Password != "" {
		role += " password '" + strings.ReplaceAll(o.Password, "'", "''") + "'"
	}
	return s, s.Exec(context.Background(), "postgres", role)
}

func (s *Server) initialise() error {
	if err := os.Mkdir(s.data, 0o700); err != nil {
		return fmt.Errorf("a directory for PostgreSQL: %w", err)
	}
	for _, path := range []string{s.dir, s.data} {
		if err := s.as.own(path); err != nil {
			return fmt.Errorf("a directory for PostgreSQL: %w", err)
		}
	}
	args := []string{"-D", s.data, "-U", Superuser, "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions", "--wal-segsize", "1", "-A", "trust"}
	if s.options.Password != "" {
		file := filepath.Join(s.dir, "password")
		if err := os.WriteFile(file, []byte(s.options.Password), 0o600); err != nil {
			return fmt.Errorf("the password of PostgreSQL: %w", err)
		}
		if err := s.as.own(file); err != nil {
			return fmt.Errorf("the password of PostgreSQL: %w", err)
		}
		args = append(args, "-A", "scram-sha-256", "--pwfile", file)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), args...)
	cmd.Dir, cmd.SysProcAttr = s.dir, s.as.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return s.configure()
}

// configure writes what differs from the server's defaults.
func (s *Server) configure() error {
	settings := map[string]string{
		"listen_addresses": "", "unix_socket_directories": s.dir, "port": fmt.Sprint(port), "max_connections": "40",
		"shared_buffers": "16MB", "max_wal_size": "64MB", "min_wal_size": "4MB", "timezone": "Pacific/Chatham", // nobody may depend on it
		"autovacuum": "on", "logging_collector": "off", "jit": "off",
	}
	if !s.options.Durable {
		maps.Copy(settings, map[string]string{"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"})
	}
	maps.Copy(settings, s.options.Settings)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	path := filepath.Join(s.data, "postgresql.auto.conf")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("configure PostgreSQL: %w", err)
	}
	return s.as.own(path)
}

// Set changes one setting for the next Run.
func (s *Server) Set(name, value string) error {
	if s.options.Settings == nil {
		s.options.Settings = map[string]string{}
	}
	s.options.Settings[name] = value
	return s.configure()
}

// Run starts the server again after Kill or Stop, and returns when it answers.
func (s *Server) Run() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := s.launch(ctx)
		if err == nil {
			return nil
		}
		// What is left of a killed server may need a moment to go.
		if backoff.Wait(ctx, 10*pollInterval) != nil {
			return err
		}
	}
}

func (s *Server) launch(ctx context.Context) error {
	s.mu.Lock()
	if s.process != nil {
		s.mu.Unlock()
		return errors.New("PostgreSQL runs already")
	}
	output, err := os.OpenFile(s.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("PostgreSQL's log: %w", err)
	}
	defer output.Close()
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data) //nolint:noctx // it lives until Kill or Stop, not for one call
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = s.dir, output, output, s.as.attributes()
	if err := cmd.Start(); err != nil {
		s.mu.Unlock()
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	exited := make(chan struct{})
	s.process, s.exited = cmd.Process, exited
	s.mu.Unlock()
	go func() {
		_ = cmd.Wait() // how it ended stands in its log
		close(exited)
	}()
	for {
		err := s.answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			s.forget()
			log, _ := os.ReadFile(s.LogPath())
			return fmt.Errorf("PostgreSQL ended at once: %s", log[max(0, len(log)-2000):])
		default:
		}
		if backoff.Wait(ctx, pollInterval) != nil {
			return errors.Join(fmt.Errorf("PostgreSQL does not answer: %w", err), s.Kill())
		}
	}
}

func (s *Server) answers(ctx context.Context) error {
	return s.Exec(ctx, "postgres", "select 1")
}

// URL is the connection string of a database of this server, for its owner.
func (s *Server) URL(database string) string { return s.url(User, database) }

func (s *Server) url(user, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(user), Path: "/" + database}
	if s.options.Password != "" {
		u.User = url.UserPassword(user, s.options.Password)
	}
	u.RawQuery = url.Values{"host": {s.dir}, "port": {fmt.Sprint(port)}, "sslmode": {"disable"}}.Encode()
	return u.String()
}

// LogPath is where the server writes what it has to say.
func (s *Server) LogPath() string { return filepath.Join(s.dir, "log") }

// DataDir is where its data is.
func (s *Server) DataDir() string { return s.data }

// Exec runs a statement in a database, as the superuser.
func (s *Server) Exec(ctx context.Context, database, sql string, args ...any) error {
	conn, err := s.Connect(ctx, database)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql, args...)
	return errors.Join(err, conn.Close(ctx))
}

// Connect is a connection of the superuser, which the caller closes.
func (s *Server) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.url(Superuser, database))
}

// Create makes an empty database, which User owns.
func (s *Server) Create(ctx context.Context, database string) error {
	return s.Exec(ctx, "postgres", "create database "+pgx.Identifier{database}.Sanitize()+" owner "+User)
}

// Drop removes a database, with whoever is connected to it.
func (s *Server) Drop(ctx context.Context, database string) error {
	return s.Exec(ctx, "postgres", "drop database if exists "+pgx.Identifier{database}.Sanitize()+" with (force)")
}

// Kill ends all of the server's processes with SIGKILL, and waits for it: a computer
// that loses power, but for what the disk had not got yet.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

// Stop ends the server in order, though not its clients.
func (s *Server) Stop() error { return s.end(syscall.SIGINT) }

func (s *Server) end(signal os.Signal) error {
	s.mu.Lock()
	process, exited := s.process, s.exited
	s.mu.Unlock()
	if process == nil {
		return nil
	}
	children := childrenOf(process.Pid)
	_ = process.Signal(signal) // an error means that it has ended already
	if signal == syscall.SIGKILL {
		for _, pid := range children {
			kill(pid)
		}
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-exited:
	case <-timer.C:
		_ = process.Kill()
		<-exited
		s.forget()
		return fmt.Errorf("PostgreSQL (process %d) did not end", process.Pid)
	}
	s.forget()
	return nil
}

func (s *Server) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = nil
}

// Close ends the server and removes all of it.
func (s *Server) Close() error {
	err := s.end(syscall.SIGQUIT)
	return errors.Join(err, os.RemoveAll(s.data), os.RemoveAll(s.dir))
}

// find looks for the programs in PATH and where distributions put them.
func find() (dir string, err error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", ErrNotInstalled
	}
	slices.Sort(found) // of two digits each
	return filepath.Dir(found[len(found)-1]), nil
}
