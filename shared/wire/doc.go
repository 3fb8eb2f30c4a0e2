// Package wire is the language that an agent and the coordinator speak: the
// requests, answers, limits and problem codes of enrolment, sync and identity
// renewal.
//
// Everything here travels as JSON over TLS 1.3. Both sides ignore fields that
// they do not know, so that a newer agent can talk to an older coordinator and
// the other way round; both sides enforce the limits below before they look at
// anything else.
package wire

import "time"

// Protocol is the version of this language. A side that meets a higher one
// answers with CodeProtocol and changes nothing.
const Protocol = 1

// Paths of the agent interface.
const (
	EnrollPath   = "/agent/v1/enroll"
	SyncPath     = "/agent/v1/sync"
	IdentityPath = "/agent/v1/identity"
)

// Limits of one request. A sender splits its work to stay below them; a
// receiver refuses what is above them with CodeBodyTooLarge or CodeInvalid.
const (
	MaxSyncBody   = 4 << 20
	MaxEnrollBody = 64 << 10
	MaxRows       = 1000 // changed and removed rows together
	MaxEvents     = 500
	MaxOrders     = 50
	MaxRowBytes   = 64 << 10
	MaxNameLen    = 128
	MaxTextLen    = 1024 // any free text: errors, details
)

// Pause bounds what a coordinator may ask for in SyncResponse.PauseMillis and
// what an agent will obey.
const (
	MinPause = time.Second
	MaxPause = time.Hour
)
