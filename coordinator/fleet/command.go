package fleet

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Bounds of log entries, in bytes. Raft's heartbeats suffer from large entries, so
// that no larger one than MaxEntry is made: [SplitSync] cuts what would be. Earlier
// versions made larger ones, and a node reads them up to MaxReadEntry.
const (
	MaxEntry = 512 << 10
	// TargetEntry bounds the sizes of the commands of one entry together; the rest
	// is the entry's own.
	TargetEntry = MaxEntry - 64
	// MaxCommand bounds one command's payload.
	MaxCommand   = TargetEntry - commandOverhead
	MaxReadEntry = 2 << 20
	// commandOverhead is the most that a command has besides its payload.
	commandOverhead = 48
	// MaxEntryCommands bounds the commands of one entry.
	MaxEntryCommands = 4096
)

// Type says what a command is. Numbers are never used twice.
type Type uint8

// ID names one command. Its proposer makes it; a command that is proposed again
// because its outcome was unknown keeps it, and is applied once.
type ID [16]byte

// NewID is a random id.
func NewID() ID {
	var id ID
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	return id
}

// String is lower-case hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Command is one change of the state, as it travels in the log.
type Command struct {
	// Version is that of the payload's meaning, counted per type from 1.
	Version uint8 `cbor:"1,keyasint"`
	Type    Type  `cbor:"2,keyasint"`
	// Ignorable lets a node that does not know the type or version skip the
	// command instead of stopping: its sender knows that no other command
	// depends on its effect.
	Ignorable bool   `cbor:"3,keyasint,omitempty"`
	ID        ID     `cbor:"4,keyasint"`
	Time      int64  `cbor:"5,keyasint"` // the proposer's clock, Unix nanoseconds
	Payload   []byte `cbor:"6,keyasint"`
}

// Payload is the content of a command: one of this package's command structs.
type Payload interface {
	commandType() Type
}

// NewCommand makes a command with a fresh id from the proposer's time and a
// payload. It refuses one that is larger than MaxCommand, or that holds a value
// that would not come out of the log again.
func NewCommand(at time.Time, payload Payload) (Command, error) {
	typ := payload.commandType()
	switch p := payload.(type) {
	case ApplyRestore:
		p.Level = Level
		payload = p
	case RecordOrder:
		payload = p.bounded()
	case RevokeOrder:
		payload = p.bounded()
	}
	data, err := encoder.Marshal(payload)
	if err != nil {
		return Command{}, fmt.Errorf("command %d: encode: %w", typ, err)
	}
	if len(data) > MaxCommand {
		return Command{}, fmt.Errorf("command %d has %d bytes, at most %d fit in the log; split it", typ, len(data), MaxCommand)
	}
	// What is in the log and cannot be decoded stops every node. Whatever came
	// from outside into the payload (a date in the year 10000, text that is not
	// UTF-8) is found here instead.
	if err := handlers[typ].check(data); err != nil {
		return Command{}, fmt.Errorf("command %d holds a value that cannot be stored: %w", typ, err)
	}
	version := handlers[typ].version
	if older, ok := payload.(interface{ version() uint8 }); ok {
		version = older.version()
	}
	return Command{Version: version, Type: typ, ID: NewID(), Time: at.UnixNano(), Payload: data}, nil
}

// Size is what the command takes in a log entry, in bytes, at most.
func (c Command) Size() int { return len(c.Payload) + commandOverhead }

// At is the proposer's time, in UTC.
func (c Command) At() time.Time { return time.Unix(0, c.Time).UTC() }

// entryVersion is the version of the entry's frame, not of the commands in it.
const entryVersion = 1

type entryFrame struct {
	_        struct{} `cbor:",toarray"`
	Version  uint8
	Commands []Command
}

// Errors of log entries that this node cannot apply. Whoever applies must stop
// at them: going on would make this node differ from the others.
var (
	ErrUnknownCommand = errors.New("the log holds a command that this version does not know")
	ErrUndecodable    = errors.New("a log entry cannot be decoded")
	ErrOutOfOrder     = errors.New("log entries came out of order")
	ErrInternal       = errors.New("the state refused a change")
)

// A StopError says why a log entry cannot be applied here. It wraps one of the
// errors above. The state is as it was before the entry.
type StopError struct {
	Index uint64 // of the log entry
	Err   error
}

// Error names the entry and the mend.
func (e *StopError) Error() string {
	mend := "this node's log is damaged, or was written by another program: restore the node from a backup or from its peers"
	switch {
	case errors.Is(e.Err, ErrUnknownCommand):
		mend = "upgrade this node to the version that the leader runs, then start it again"
	case errors.Is(e.Err, ErrInternal):
		mend = "this is a defect of the program: keep the data directory and report it"
	}
	return fmt.Sprintf("log entry %d: %v; %s", e.Index, e.Err, mend)
}

// Unwrap returns the cause.
func (e *StopError) Unwrap() error { return e.Err }

// EncodeEntry packs commands into one log entry.
func EncodeEntry(commands []Command) ([]byte, error) {
	if len(commands) == 0 || len(commands) > MaxEntryCommands {
		return nil, fmt.Errorf("a log entry holds 1 to %d commands, not %d", MaxEntryCommands, len(commands))
	}
	data, err := encoder.Marshal(entryFrame{Version: entryVersion, Commands: commands})
	if err != nil {
		return nil, fmt.Errorf("encode log entry: %w", err)
	}
	if len(data) > MaxEntry {
		return nil, fmt.Errorf("a log entry of %d bytes, at most %d are made; propose fewer commands at once", len(data), MaxEntry)
	}
	return data, nil
}

// DecodeEntry unpacks a log entry. Its errors wrap ErrUndecodable or, for an
// entry of a later version, ErrUnknownCommand.
func DecodeEntry(data []byte) ([]Command, error) {
	if len(data) > MaxReadEntry {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are expected", ErrUndecodable, len(data), MaxReadEntry)
	}
	var frame entryFrame
	if err := decoder.Unmarshal(data, &frame); err != nil || frame.Version > entryVersion {
		return nil, unreadableEntry(data, err)
	}
	if len(frame.Commands) == 0 || len(frame.Commands) > MaxEntryCommands {
		return nil, fmt.Errorf("%w: %d commands", ErrUndecodable, len(frame.Commands))
	}
	return frame.Commands, nil
}

// unreadableEntry says why an entry is not one of this version. The version comes
// first, so that the frame of a later one is told from a damaged one.
func unreadableEntry(data []byte, decoding error) error {
	var probe []cbor.RawMessage
	if err := decoder.Unmarshal(data, &probe); err != nil {
		return fmt.Errorf("%w: %w", ErrUndecodable, err)
	}
	var version uint8
	if len(probe) == 0 || decoder.Unmarshal(probe[0], &version) != nil {
		return fmt.Errorf("%w: no version", ErrUndecodable)
	}
	if version > entryVersion {
		return fmt.Errorf("%w: entry version %d", ErrUnknownCommand, version)
	}
	return fmt.Errorf("%w: %w", ErrUndecodable, decoding)
}
