package durable

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Sync makes the content of an open file durable. Every sync of a file that this module makes goes through here, as
// every one of a directory goes through SyncDir: what a watcher is told of is what was really asked of the disk. A rule
// of the build finds syncs that are made past them.
func Sync(f *os.File) error {
	synced := syncBegins(f.Name())
	if err := f.Sync(); err != nil {
		return err
	}
	synced()
	return nil
}

// A SyncWatcher is told that the sync of a file or directory begins, and what it returns is called when that has
// succeeded. What was there when the sync began is durable then; what came later need not be. It is called from
// whatever goroutine syncs.
type SyncWatcher func(path string) (synced func())

// watched is a watcher, and the directory that it is about.
type watched struct {
	dir   string
	watch SyncWatcher
}

var (
	watchers atomic.Pointer[[]*watched] // nil in production
	watching sync.Mutex                 // held to change the list
)

// WatchSyncs has watch told of every sync of dir and of what lies in it, until stop is called. It is for tests that
// take back, as a power failure does, whatever was not synced. Unlike a Hook it is the process's: a sync has no
// configuration of its own, and one that is not made has nobody to tell of it. Tests that run side by side have
// directories of their own.
func WatchSyncs(dir string, watch SyncWatcher) (stop func()) {
	entry := &watched{dir: dir, watch: watch}
	change := func(with func([]*watched) []*watched) {
		watching.Lock()
		defer watching.Unlock()
		var list []*watched
		if now := watchers.Load(); now != nil {
			list = slices.Clone(*now)
		}
		if list = with(list); len(list) == 0 {
			watchers.Store(nil)
			return
		}
		watchers.Store(&list)
	}
	change(func(list []*watched) []*watched { return append(list, entry) })
	return func() {
		change(func(list []*watched) []*watched {
			return slices.DeleteFunc(list, func(w *watched) bool { return w == entry })
		})
	}
}

// syncBegins tells the watchers of a path, and returns what tells them of the end.
func syncBegins(path string) (synced func()) {
	list := watchers.Load()
	if list == nil {
		return func() {}
	}
	var ends []func()
	for _, w := range *list {
		if path == w.dir || strings.HasPrefix(path, w.dir+string(filepath.Separator)) {
			ends = append(ends, w.watch(path))
		}
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}
