package testca

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/certctl/certctl/shared/backoff"
)

// keptLines is how much of a process's output is kept to explain a failure.
const keptLines = 40

// ErrExited says that the process ended before it was ready.
var ErrExited = errors.New("ended before it was ready")

// Command describes a process.
type Command struct {
	Path string
	Args []string
	Dir  string
	Env  []string // added to the environment of this process
	// Line is called with each line of output, one call at a time; may be nil.
	Line func(line string)
	// Log receives the whole output; nil discards it.
	Log io.Writer
}

// Process is a running child process. Its methods are safe for concurrent use.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process was waited for and its output read

	mu   sync.Mutex
	tail []string
}

// StartProcess starts the command. The process is killed by Kill; on Linux also
// when this process ends in whatever way.
func StartProcess(c Command) (*Process, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	// The process ends by Kill alone, not with the context of whoever started it.
	cmd := exec.CommandContext(context.Background(), c.Path, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdout, cmd.Stderr = writer, writer
	bindToParent(cmd)
	if err := cmd.Start(); err != nil {
		_, _ = reader.Close(), writer.Close()
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	_ = writer.Close()
	p := &Process{name: c.Path, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.read(reader, c)
		_ = reader.Close()
		_ = cmd.Wait()
	}()
	return p, nil
}

func (p *Process) read(output io.Reader, c Command) {
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if c.Log != nil {
			_, _ = fmt.Fprintln(c.Log, line)
		}
		p.mu.Lock()
		p.tail = append(p.tail, line)
		if len(p.tail) > keptLines {
			p.tail = p.tail[1:]
		}
		p.mu.Unlock()
		if c.Line != nil {
			c.Line(line)
		}
	}
	_, _ = io.Copy(io.Discard, output) // an overlong line must not block the process
}

// AwaitReady calls ready until it returns nil. It fails with ErrExited when the
// process ends first, and with ready's last error when limit has passed.
func (p *Process) AwaitReady(ctx context.Context, limit time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s: %w:\n%s", p.name, ErrExited, p.Output())
		default:
		}
		if backoff.Wait(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("%s is not ready after %v: %w\n%s", p.name, limit, err, p.Output())
		}
	}
}

// Output returns the last lines that the process wrote.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "\n")
}

// Kill ends the process at once and returns when it is gone. Killing a process
// that has ended does nothing.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}
