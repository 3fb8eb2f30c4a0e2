package store

import (
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/wire"
)

// Command is an act that the centre asked for, from the moment when this host
// accepted it until the centre has heard what became of it.
type Command struct {
	Request wire.Command      `json:"request"`
	State   wire.CommandState `json:"state"`
	Detail  string            `json:"detail,omitempty"`
	At      time.Time         `json:"at"` // of State

	// Bound says that Serial, Leaf and Issuer are set: from then on the command
	// is about that certificate and no other, and is not withdrawn any more.
	Bound bool `json:"bound,omitempty"`
	// Serial is of the certificate that is to be replaced; "" if none was in
	// service.
	Serial string `json:"serial,omitempty"`
	// KeyID is of its key, which may be gone already.
	KeyID string `json:"key_id,omitempty"`
	// Leaf, in DER, and Issuer are of a certificate that is to be revoked: it may
	// have left the record when its turn comes.
	Leaf   []byte `json:"leaf,omitempty"`
	Issuer string `json:"issuer,omitempty"`
	// Asked says that the renewal was asked for, and AskedAt when.
	Asked   bool      `json:"asked,omitempty"`
	AskedAt time.Time `json:"asked_at,omitzero"`
	// Revoked is when the issuer confirmed the revocation, RevokeProblem why it
	// never will. RevokeAttempt and RetryAt are about the next attempt.
	Revoked       time.Time `json:"revoked,omitzero"`
	RevokeProblem string    `json:"revoke_problem,omitempty"`
	RevokeAttempt int       `json:"revoke_attempt,omitempty"`
	RetryAt       time.Time `json:"retry_at,omitzero"`
}

// Result is what the centre is told of the command.
func (c *Command) Result() wire.CommandResult {
	return wire.CommandResult{ID: c.Request.ID, State: c.State, Detail: cutText(c.Detail, wire.MaxTextLen), At: c.At}
}

// Commands returns all commands, ordered by id.
func (s *Store) Commands() ([]Command, error) {
	var list []Command
	err := s.view(func(tx *bolt.Tx) (err error) {
		list, err = commands(tx)
		return err
	})
	return list, err
}

func commands(tx *bolt.Tx) ([]Command, error) {
	var list []Command
	err := tx.Bucket([]byte(bucketCommands)).ForEach(func(key, value []byte) error {
		list = append(list, Command{})
		return decode(bucketCommands, key, value, &list[len(list)-1])
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// FollowCommands makes durable what an answer says of commands, in one
// transaction, and returns how many are new.
//
// sent are all commands that the centre asks for. Those that are not known are
// accepted, as long as there are no more than wire.MaxCommands: the rest is sent
// again. Of the known ones that are not sent any more, those go that are over,
// if told has their ids (the request said so), and those of which nothing was
// begun: they were withdrawn. A command that is known stays as it was accepted.
func (s *Store) FollowCommands(sent []wire.Command, told map[string]bool) (accepted int, err error) {
	err = s.write(commitCommands, func(c *change) error {
		accepted = 0
		wanted := make(map[string]bool, len(sent))
		for _, command := range sent {
			wanted[command.ID] = true
		}
		known, err := commands(c.tx)
		if err != nil {
			return err
		}
		count := len(known)
		for i := range known {
			id := known[i].Request.ID
			if wanted[id] || !known[i].State.Final() && known[i].Bound || known[i].State.Final() && !told[id] {
				continue
			}
			if err := c.remove(bucketCommands, []byte(id)); err != nil {
				return err
			}
			count--
		}
		for _, command := range sent {
			if count >= wire.MaxCommands {
				return nil
			}
			if has(c.tx.Bucket([]byte(bucketCommands)), []byte(command.ID)) {
				continue
			}
			fresh := Command{Request: command, State: wire.CommandAccepted, At: s.now().Round(0).UTC()}
			if err := c.putJSON(bucketCommands, []byte(command.ID), fresh); err != nil {
				return err
			}
			accepted++
			count++
		}
		return nil
	})
	return accepted, err
}

// UpdateCommand changes a command in one transaction. fn gets it, and the
// record of its certificate as it is at that moment, nil if there is none, which
// it must not change. An error of fn is returned as it is and nothing is stored.
// An unknown id, and a change of nothing, write nothing.
func (s *Store) UpdateCommand(id string, fn func(command *Command, record *Certificate) error) error {
	return s.write(commitCommand, func(c *change) error {
		command, err := getJSON[Command](c.tx, bucketCommands, []byte(id))
		if err != nil || command == nil {
			return err
		}
		record, err := getJSON[Certificate](c.tx, bucketCertificates, []byte(command.Request.Certificate))
		if err != nil {
			return err
		}
		state := command.State
		if err := fn(command, record); err != nil {
			return err
		}
		if command.State != state {
			command.At = s.now().Round(0).UTC()
		}
		command.Detail = cutText(command.Detail, wire.MaxTextLen)
		return c.putJSON(bucketCommands, []byte(id), command)
	})
}
