package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/certctl/certctl/shared/jitter"
)

// stage is where the demonstration plays: a directory, the programs that have
// to end with it, and what the audience is told.
type stage struct {
	dir      string
	began    time.Time
	steps    int
	clearing []func()
	complete bool
}

func newStage(dir string) *stage { return &stage{dir: dir, began: time.Now()} }

func (s *stage) path(elements ...string) string {
	return filepath.Join(append([]string{s.dir}, elements...)...)
}

// onClear registers what ends with the demonstration; the last comes first.
func (s *stage) onClear(fn func()) { s.clearing = append(s.clearing, fn) }

// clear ends everything and leaves nothing behind.
func (s *stage) clear() {
	for i := len(s.clearing) - 1; i >= 0; i-- {
		s.clearing[i]()
	}
	if err := os.RemoveAll(s.dir); err != nil {
		fmt.Fprintf(os.Stderr, "could not remove %s: %v\n", s.dir, err)
	}
}

func (s *stage) clock() string {
	d := time.Since(s.began)
	return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

func (s *stage) act(title string) { fmt.Printf("\n%s  == %s\n", s.clock(), title) }

// saw tells one thing that was really seen.
func (s *stage) saw(format string, args ...any) {
	s.steps++
	fmt.Printf("%s  ok  %s\n", s.clock(), fmt.Sprintf(format, args...))
}

func (s *stage) failed(err error) {
	fmt.Printf("%s  FAILED  %v\n", s.clock(), err)
	for _, name := range []string{"coordinator.log", "agent.log"} {
		text, err := os.ReadFile(s.path(name))
		if err != nil {
			continue
		}
		const most = 6000
		if len(text) > most {
			text = text[len(text)-most:]
		}
		fmt.Printf("\n-- the end of %s\n%s\n", name, text)
	}
}

func (s *stage) end() {
	s.complete = true
	fmt.Printf("\n%s  all %d steps were seen\n", s.clock(), s.steps)
}

// await asks check until it returns nil, and returns its last error when limit
// is over.
func await(ctx context.Context, limit time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	last, seen := errNotYet, false
	now := make(chan struct{}, 1)
	now <- struct{}{}
	jitter.Loop(ctx, 250*time.Millisecond, jitter.DefaultSchedulerJitter, now, func(ctx context.Context) {
		err := check(ctx)
		switch {
		case err == nil:
			seen = true
			cancel()
		case ctx.Err() == nil:
			last = err
		}
	})
	if seen {
		return nil
	}
	return fmt.Errorf("not seen within %v: %w", limit, last)
}
