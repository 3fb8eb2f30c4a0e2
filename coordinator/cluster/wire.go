package cluster

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/fleet"
)

// The calls that nodes make to each other; see [Node.HandleCall].
const (
	methodPropose       = "propose"
	methodIndex         = "index"
	methodTerm          = "term"
	methodStats         = "stats"
	methodConfiguration = "configuration"
	methodAnnounce      = "announce"
	methodAddMember     = "add_member"
	methodRemoveMember  = "remove_member"
	methodTransfer      = "transfer"
	methodExtent        = "journal_extent"
	methodChunk         = "journal_chunk"
)

// maxCall bounds a request and an answer: an entry and what is around it.
const maxCall = fleet.MaxEntry + 64<<10

// answer is what every call is answered with: a body, or why there is none.
type answer struct {
	Error *callError `cbor:"1,keyasint,omitempty"`
	Body  []byte     `cbor:"2,keyasint,omitempty"`
}

// callError is an error on its way between nodes.
type callError struct {
	Code       callCode `cbor:"1,keyasint"`
	Detail     string   `cbor:"2,keyasint,omitempty"`
	RetryAfter int64    `cbor:"3,keyasint,omitempty"` // milliseconds
	Index      uint64   `cbor:"4,keyasint,omitempty"`
	Level      uint32   `cbor:"5,keyasint,omitempty"`
	Nodes      []string `cbor:"6,keyasint,omitempty"`
	Address    string   `cbor:"7,keyasint,omitempty"`
}

// callCode tells errors apart that the other side has to tell apart.
type callCode string

const (
	codeNotLeader  callCode = "not_leader" // nothing was done; so it is with all but codeUnknown
	codeUnknown    callCode = "unknown"
	codeOverloaded callCode = "overloaded"
	codeTooLarge   callCode = "too_large"
	codeStopped    callCode = "stopped"
	codeLevel      callCode = "level"
	codeConflict   callCode = "conflict"
	codeNoMember   callCode = "no_member"
	codeQuorum     callCode = "quorum"
	codeRefused    callCode = "refused"
	codeTaken      callCode = "address_taken"
	codeForgotten  callCode = "forgotten" // the outcome is unknown, and stays so
)

// Bodies.
type (
	proposeRequest struct {
		// Level is what a node needs to understand to apply the entry, in the
		// eyes of the proposer, which may be of a later version than the leader.
		Level uint32 `cbor:"1,keyasint"`
		Entry []byte `cbor:"2,keyasint"`
		// Repeats says that an earlier attempt may have been stored, behind the
		// log index Since.
		Repeats bool   `cbor:"3,keyasint,omitempty"`
		Since   uint64 `cbor:"4,keyasint,omitempty"`
	}
	proposeAnswer struct {
		Index   uint64         `cbor:"1,keyasint"`
		Results []fleet.Result `cbor:"2,keyasint"`
	}
	indexAnswer struct {
		Index uint64 `cbor:"1,keyasint"`
	}
	termAnswer struct {
		Term uint64 `cbor:"1,keyasint"`
	}
	statsAnswer struct {
		LastTerm    uint64 `cbor:"1,keyasint"`
		LastIndex   uint64 `cbor:"2,keyasint"`
		LastContact int64  `cbor:"3,keyasint"` // nanoseconds since the leader was heard; negative for never
		Version     string `cbor:"4,keyasint,omitempty"`
		Level       uint32 `cbor:"5,keyasint"`
	}
	configurationAnswer struct {
		Index   uint64       `cbor:"1,keyasint"`
		Members []wireMember `cbor:"2,keyasint"`
		// Applied is the index of the state that the members' keys are of.
		Applied uint64 `cbor:"3,keyasint,omitempty"`
	}
	wireMember struct {
		ID      string `cbor:"1,keyasint"`
		Address string `cbor:"2,keyasint"`
		Voter   bool   `cbor:"3,keyasint,omitempty"`
		// Key is the fingerprint of the member's key; "" if it is not known. Earlier
		// versions do not say it.
		Key string `cbor:"4,keyasint,omitempty" json:",omitempty"`
	}
	memberRequest struct {
		ID        string `cbor:"1,keyasint,omitempty"`
		Address   string `cbor:"2,keyasint,omitempty"`
		PrevIndex uint64 `cbor:"3,keyasint,omitempty"`
		// Actor asks for it, by the audit trail; "" is the cluster itself.
		Actor string `cbor:"4,keyasint,omitempty"`
	}
)

var (
	wireEncoder = mustEncMode()
	wireDecoder = mustDecMode()
)

func mustEncMode() cbor.EncMode {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(fmt.Sprintf("cluster: encoding options: %v", err))
	}
	return mode
}

// Fields that are not known are passed over: a later version may send more.
func mustDecMode() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		UTF8:             cbor.UTF8RejectInvalid,
		MaxArrayElements: fleet.MaxEntryCommands,
		MaxMapPairs:      64,
		MaxNestedLevels:  8,
	}.DecMode()
	if err != nil {
		panic(fmt.Sprintf("cluster: decoding options: %v", err))
	}
	return mode
}

// mustEncode encodes one of the bodies above, which cannot fail.
func mustEncode(v any) []byte {
	data, err := wireEncoder.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("cluster: encode %T: %v", v, err))
	}
	return data
}

func decodeCall(data []byte, v any) error {
	if len(data) > maxCall {
		return fmt.Errorf("a call of %d bytes between nodes, at most %d are accepted", len(data), maxCall)
	}
	if err := wireDecoder.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode a call between nodes: %w", err)
	}
	return nil
}

// encodeError puts an error into words that decodeError understands.
func encodeError(err error) *callError {
	e := &callError{Code: codeRefused, Detail: err.Error()}
	var (
		unknown    *UnknownOutcomeError
		overloaded *OverloadedError
		level      *LevelError
		conflict   *ConflictError
		quorum     *QuorumError
		taken      *AddressTakenError
	)
	switch {
	case errors.Is(err, errForgotten):
		e.Code = codeForgotten
	case errors.As(err, &unknown): // before what it wraps
		e.Code, e.Detail = codeUnknown, unknown.Err.Error()
	case errors.As(err, &overloaded):
		e.Code, e.RetryAfter = codeOverloaded, overloaded.RetryAfter.Milliseconds()
	case errors.As(err, &level):
		e.Code, e.Level, e.Nodes = codeLevel, level.Required, level.Nodes
	case errors.As(err, &conflict):
		e.Code, e.Index = codeConflict, conflict.Index
	case errors.As(err, &quorum):
		e.Code, e.Detail = codeQuorum, quorum.Reason
	case errors.As(err, &taken):
		e.Code, e.Address, e.Nodes = codeTaken, taken.Address, []string{taken.Member}
	case errors.Is(err, ErrNoMember):
		e.Code = codeNoMember
	case errors.Is(err, ErrTooLarge):
		e.Code = codeTooLarge
	case errors.Is(err, ErrStopped):
		e.Code = codeStopped
	case errors.Is(err, ErrNotLeader):
		e.Code = codeNotLeader
	}
	return e
}

// decodeError is the error that encodeError was given, as far as it matters.
func decodeError(e *callError) error {
	switch e.Code {
	case codeNotLeader, codeStopped: // one that stops is not the leader for long
		return fmt.Errorf("%w: %s", ErrNotLeader, e.Detail)
	case codeUnknown:
		return &UnknownOutcomeError{Err: errors.New(e.Detail)}
	case codeForgotten:
		return &UnknownOutcomeError{Err: errForgotten}
	case codeOverloaded:
		return &OverloadedError{RetryAfter: time.Duration(e.RetryAfter) * time.Millisecond}
	case codeTooLarge:
		return ErrTooLarge
	case codeLevel:
		return &LevelError{Required: e.Level, Nodes: e.Nodes}
	case codeConflict:
		return &ConflictError{Index: e.Index}
	case codeNoMember:
		return ErrNoMember
	case codeTaken:
		return &AddressTakenError{Address: e.Address, Member: strings.Join(e.Nodes, ", ")}
	case codeQuorum:
		return &QuorumError{Reason: e.Detail}
	default:
		return &RefusedError{Reason: e.Detail}
	}
}

func toWire(servers []raft.Server) []wireMember {
	members := make([]wireMember, len(servers))
	for i, s := range servers {
		members[i] = wireMember{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter}
	}
	return members
}

// keysOf are the keys of members, by their ids, as far as they are told.
func keysOf(members []wireMember) map[string]string {
	keys := map[string]string{}
	for _, m := range members {
		if m.Key != "" {
			keys[m.ID] = m.Key
		}
	}
	return keys
}

func fromWire(members []wireMember) []raft.Server {
	servers := make([]raft.Server, len(members))
	for i, m := range members {
		servers[i] = raft.Server{ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Address), Suffrage: raft.Nonvoter}
		if m.Voter {
			servers[i].Suffrage = raft.Voter
		}
	}
	return servers
}
