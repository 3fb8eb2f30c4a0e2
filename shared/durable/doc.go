// Package durable writes files that are still there, whole, after the power failed.
//
// A file is written beside its destination, synced, renamed over it, and the directory is synced: whoever opens the
// destination at any moment, after any crash, finds either the whole old content or the whole new one. Directories are
// created, and files renamed and removed, with the same care. The package also guards a program's own state: a
// directory that only the program may enter, and a lock that keeps a second copy of it out.
//
// All functions may be called from several goroutines; two writers of one path are not ordered, the last rename wins.
// DESIGN.md tells which system calls stand behind each promise and what Windows cannot promise.
package durable
