package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/certctl/certctl/agent/config"
	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/service"
	"github.com/certctl/certctl/shared/settings"
)

const (
	// watchInterval is how often the files of the configuration are looked at.
	watchInterval = 10 * time.Second
	// settleTime lies between two looks that must find the same before a change
	// counts: a file may be half written.
	settleTime = 2 * time.Second
	// retryLooks is after how many looks a configuration that is not in effect is
	// tried again although no file that is known changed: what it lacks may be a
	// file that it could not name, or a directory, or a user.
	retryLooks = 6
)

// files are the configuration file and those that it names.
func (c *configuration) files(s *config.Settings, report *settings.Report) []string {
	paths := map[string]bool{c.path: true}
	for _, issuer := range s.Issuers {
		if issuer.ACME != nil && issuer.ACME.CAFile != "" {
			paths[issuer.ACME.CAFile] = true
		}
	}
	for _, file := range report.SecretFiles() {
		paths[file] = true
	}
	return slices.Sorted(maps.Keys(paths))
}

// snapshot is what was seen of files, by path; nil for one that was not there.
type snapshot map[string]os.FileInfo

func look(paths []string) snapshot {
	seen := make(snapshot, len(paths))
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			info = nil // also when it may not be looked at
		}
		seen[path] = info
	}
	return seen
}

// and adds what was seen later of other files.
func (s snapshot) and(later snapshot) snapshot {
	all := maps.Clone(later)
	for path := range later {
		if info, known := s[path]; known {
			all[path] = info
		}
	}
	return all
}

func (s snapshot) paths() []string { return slices.Sorted(maps.Keys(s)) }

// same compares by time, size and inode.
func (s snapshot) same(other snapshot) bool {
	return maps.EqualFunc(s, other, func(a, b os.FileInfo) bool {
		if a == nil || b == nil {
			return a == nil && b == nil
		}
		return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
	})
}

// watch puts a change of the files into effect, until ctx is done.
func (c *configuration) watch(ctx context.Context, life service.Lifecycle) error {
	again := make(chan struct{}, 1)
	var last snapshot
	looks := 0
	jitter.Loop(ctx, watchInterval, jitter.DefaultSchedulerJitter, again, func(context.Context) {
		c.mu.Lock()
		tried, problem := c.tried, c.problem
		c.mu.Unlock()
		looks++
		seen := look(tried.paths())
		switch {
		case seen.same(tried) && (problem == "" || looks%retryLooks != 0):
			last = nil
			return
		case !seen.same(tried) && (last == nil || !seen.same(last)):
			last = seen
			time.AfterFunc(settleTime, func() {
				select {
				case again <- struct{}{}:
				default: // a look comes anyway
				}
			})
			return
		}
		last = nil
		if err := c.unwritten(seen); err != nil {
			c.refuse(seen, err, life)
			return
		}
		done := life.Reloading()
		if _, err := c.reload(); err != nil {
			done(notInEffect(err.Error()))
			if err.Error() != problem { // which was said already
				c.log.Error("configuration on disk is not in effect", "err", err)
			}
			return
		}
		done("configuration in effect")
	})
	return nil
}

// unwritten refuses a file that is empty: it is about to be written, or its disk
// is full. Whoever means it may ask for it.
func (c *configuration) unwritten(seen snapshot) error {
	if info := seen[c.path]; info != nil && info.Size() == 0 {
		return fmt.Errorf("%s is empty; if that is meant, run \"certctl-agent reload\"", c.path)
	}
	return nil
}

func (c *configuration) refuse(seen snapshot, err error, life service.Lifecycle) {
	c.mu.Lock()
	known := c.problem == err.Error()
	c.tried, c.problem = seen, err.Error()
	c.mu.Unlock()
	if !known {
		life.Status(notInEffect(err.Error()))
		c.log.Error("configuration on disk is not in effect", "err", err)
	}
}

// obey reloads whenever the service manager asks for it, until ctx is done.
func (c *configuration) obey(ctx context.Context, life service.Lifecycle, requests <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-requests:
		}
		done := life.Reloading()
		if _, err := c.reload(); err != nil {
			done(notInEffect(err.Error()))
			c.log.Error("configuration on disk is not in effect", "err", err)
			continue
		}
		done("configuration in effect")
	}
}

func notInEffect(problem string) string {
	return "configuration on disk is not in effect: " + problem
}
