package store

import (
	"errors"
	"fmt"
	"os"

	"github.com/certctl/certctl/shared/durable"
)

// resultRoom is more than storing the result of an order takes: its record, the
// pages of all indexes on the way to it, and the list of free pages.
const resultRoom = 256 << 10

// roomSuffix names the file of CheckRoom; what a crash leaves of it the next
// check writes over and removes.
const roomSuffix = ".room"

// CheckRoom returns nil if the result of an order could be stored just now: it
// writes a file of that size beside the state file, syncs it and removes it.
// Somebody else may fill the disk a moment later; that whoever asks is prepared
// for it, is for them. After ErrStateUnknown it returns that.
func (s *Store) CheckRoom() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unknown != nil {
		return s.unknown
	}
	path := s.source.path + roomSuffix
	err := s.hook.Around(stepRoom, path, func() error { return writeRoom(path) })
	if err := errors.Join(err, removeRoom(s.hook, path)); err != nil {
		return s.source.access(fmt.Errorf("room for the result of an order: %w", err))
	}
	return nil
}

func writeRoom(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	// Not zeros, for which some file systems set nothing aside.
	octets := make([]byte, resultRoom)
	for i := range octets {
		octets[i] = byte(i>>8) ^ byte(i*31)
	}
	_, err = f.Write(octets)
	if err == nil {
		err = durable.Sync(f)
	}
	return errors.Join(err, f.Close())
}

func removeRoom(hook durable.Hook, path string) error {
	return hook.Around(stepRoomRemove, path, func() error {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
}
