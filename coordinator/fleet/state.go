package fleet

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/certctl/certctl/coordinator/fleet/tables"
)

// What is remembered of commands: a proposer that could not know the outcome
// tries again within seconds, a long restore within half an hour. Whichever bound
// is met first forgets the oldest; a busy fleet meets the second one within a
// quarter of a minute. Whoever hands a repeated command to the log therefore asks
// [State.Forgotten] whether it would be recognized.
const (
	rememberFor = time.Hour
	rememberMax = 100_000
)

// collectedFor is how long a collected order stays known.
const collectedFor = 24 * time.Hour

// cleanPerEntry bounds the old orders that one entry clears away, so that no
// entry takes long.
const cleanPerEntry = 256

// State is everything that the coordinator knows, at one log index.
//
// Apply and Restore belong to one goroutine. View, Index and Snapshot may be
// called at any time by any number of goroutines, but a Snapshot is of a known
// index only when taken by the goroutine that applies.
type State struct {
	db    atomic.Pointer[tables.Tables]
	index atomic.Uint64
	// forgotten is what Forgotten tells.
	forgotten atomic.Uint64
	// rememberMax is the constant, but in tests that cannot wait for so many.
	rememberMax int
}

// New is the empty state, at index 0.
func New() (*State, error) {
	s := &State{rememberMax: rememberMax}
	s.db.Store(tables.New(databaseSchema()))
	return s, nil
}

// Index is the log index of the last applied entry.
func (s *State) Index() uint64 { return s.index.Load() }

// Forgotten is the highest log index of a command that is not remembered any more:
// one that was applied later, and is proposed again, is recognized. It is of this
// process, and not replicated: after a start from a snapshot it may be higher than need
// be, and does not tell of an [ApplyRestore] of before.
func (s *State) Forgotten() uint64 { return s.forgotten.Load() }

// Remembers reports whether each of the commands was applied and is recognized.
func (s *State) Remembers(commands []Command) bool {
	txn := s.db.Load().Read()
	return !slices.ContainsFunc(commands, func(c Command) bool {
		_, ok := txn.First(string(tableSeen), indexID, key(c.ID[:])).(*seenCommand)
		return !ok
	})
}

// Apply applies one log entry: all of its commands, in order, as one change
// that readers see at once. It returns a result for each command and the facts
// to append to the journal.
//
// A command whose id was applied before returns the result of that time and
// changes nothing. An error is a *StopError: the state is unchanged and the
// caller must not apply anything more.
func (s *State) Apply(index uint64, entry []byte) ([]Result, []Fact, error) {
	stop := func(err error) ([]Result, []Fact, error) {
		return nil, nil, &StopError{Index: index, Err: err}
	}
	if applied := s.index.Load(); index <= applied {
		return stop(fmt.Errorf("%w: %d is applied already", ErrOutOfOrder, applied))
	}
	commands, err := DecodeEntry(entry)
	if err != nil {
		return stop(err)
	}

	c := &change{txn: s.db.Load().Write(), index: index, infos: map[Table]*tableInfo{}, rememberMax: s.rememberMax}
	if stored := find[position](c, tablePosition, indexID, key("position")); stored != nil {
		c.position = *stored
	}
	results := make([]Result, len(commands))
	for i, command := range commands {
		if results[i], err = c.apply(uint32(i), command); err != nil { // at most MaxEntryCommands
			return stop(err)
		}
	}
	c.clean()
	c.finish()
	if c.err != nil {
		return stop(c.err)
	}
	s.db.Store(c.txn.Commit())
	s.forgotten.Store(max(s.forgotten.Load(), c.forgotten))
	s.index.Store(index)
	return results, c.facts, nil
}

// apply applies one command, or looks up what it came to before.
func (c *change) apply(ordinal uint32, command Command) (Result, error) {
	if seen := find[seenCommand](c, tableSeen, indexID, key(command.ID[:])); seen != nil {
		return seen.Result, c.err
	}
	h, ok := handlers[command.Type]
	if !ok || command.Version > h.version {
		if !command.Ignorable {
			return Result{}, fmt.Errorf("%w: type %d version %d", ErrUnknownCommand, command.Type, command.Version)
		}
		return Result{}, nil
	}
	c.at, c.command = command.At(), command.ID
	result, err := h.apply(c, command.Payload)
	c.seal()
	if err := errors.Join(err, c.err); err != nil {
		return Result{}, fmt.Errorf("command %d of the entry (type %d): %w", ordinal, command.Type, err)
	}
	c.insert(tableSeen, &seenCommand{
		ID: command.ID, Index: c.index, Ordinal: ordinal, Time: command.Time, Result: result,
	})
	return result, c.err
}

// clean forgets what is too old to be asked for, by the time of the entry's
// last new command.
//
// Remembered commands go from the oldest on, up to the first that is young
// enough, so that a leader with a wrong clock can neither stop the forgetting
// for good nor empty the memory for longer than its clock is wrong.
func (c *change) clean() {
	if c.at.IsZero() {
		return // every command was known
	}
	for {
		seen := findPrefix[seenCommand](c, tableSeen, indexOrder, nil)
		if seen == nil || seen.Index == c.index ||
			c.info(tableSeen).Rows <= c.rememberMax && c.at.Sub(time.Unix(0, seen.Time)) <= rememberFor {
			break
		}
		c.delete(tableSeen, seen)
		c.forgotten = max(c.forgotten, seen.Index)
	}
	c.cleanStaged()
	for range cleanPerEntry {
		order := findPrefix[Order](c, TableOrders, indexCollected, nil)
		if order == nil || c.at.Before(order.keptUntil()) {
			break
		}
		c.delete(TableOrders, order)
	}
	for range cleanPerEntry {
		issued := findPrefix[Issued](c, TableIssued, indexNotAfter, nil)
		if issued == nil || !issued.NotAfter.Before(c.at) {
			break
		}
		c.delete(TableIssued, issued)
	}
	finished := c.scan(TableAgentCommands, indexDone, nil)
	for range cleanPerEntry {
		command, ok := finished.Next().(*AgentCommand)
		if !ok || c.at.Sub(command.DoneAt) < commandsFor {
			break
		}
		// Those of a campaign keep it from asking again.
		if campaign := find[Campaign](c, TableCampaigns, indexID, key(command.Campaign)); campaign == nil || !campaign.Running(c.at) {
			c.delete(TableAgentCommands, command)
		}
	}
}

// A handler applies the commands of one type, up to a version.
type handler struct {
	version uint8
	check   func(payload []byte) error
	apply   func(c *change, payload []byte) (Result, error)
	// name is that of the payload's type, and read decodes one.
	name string
	read func(payload []byte) (any, error)
}

var handlers = map[Type]handler{}

// register adds the handler of a type. It panics when the type has one: that is
// a mistake in the program, found at its start.
func register[P Payload](version uint8, apply func(c *change, payload *P) Result) {
	var zero P
	typ := zero.commandType()
	if _, taken := handlers[typ]; taken {
		panic(fmt.Sprintf("fleet: command type %d has two handlers", typ))
	}
	decode := func(data []byte) (*P, error) {
		payload := new(P)
		if err := decoder.Unmarshal(data, payload); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUndecodable, err)
		}
		return payload, nil
	}
	handlers[typ] = handler{
		version: version,
		check: func(data []byte) error {
			_, err := decode(data)
			return err
		},
		apply: func(c *change, data []byte) (Result, error) {
			payload, err := decode(data)
			if err != nil {
				return Result{}, err
			}
			return apply(c, payload), nil
		},
		name: reflect.TypeFor[P]().Name(),
		read: func(data []byte) (any, error) { return decode(data) },
	}
}

func init() {
	register(1, initCA)
	register(1, createEnrollmentToken)
	register(1, revokeEnrollmentToken)
	register(1, enrollAgent)
	register(1, setPendingIdentity)
	register(1, promoteIdentity)
	register(2, retireAgent)
	register(6, syncAgent)
	register(1, touchAgents)
	register(2, completeOrder)
	register(1, rejectOrder)
	register(2, createAPIToken)
	register(1, revokeAPIToken)
	register(1, rotateAPIToken)
	register(1, putAssignment)
	register(1, deleteAssignment)
	register(2, commandAgent)
	register(1, beginCampaign)
	register(1, cancelCampaign)
	register(1, revokeCertificate)
	register(1, publishRevocations)
	register(1, changeCA)
	register(1, acknowledgeTrust)
	register(1, noteSharedIdentity)
	register(1, initClusterCA)
	register(1, changeClusterCA)
	register(1, createJoinToken)
	register(1, revokeJoinToken)
	register(1, useJoinToken)
	register(1, announceNode)
	register(1, forgetNode)
	register(1, noteTransfer)
	register(1, noteRestore)
	register(1, stageRestore)
	register(1, applyRestore)
	register(1, dropRestore)
	register(1, claimOrder)
	register(1, recordOrder)
	register(1, cancelOrder)
	register(1, retryOrder)
	register(1, resolveOrder)
	register(1, revokeOrder)
	register(1, notePrune)
	register(1, recordDay)
	register(1, beginAuditChain)
}
