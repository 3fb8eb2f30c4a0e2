package store

import "github.com/certctl/certctl/shared/durable"

// The store's durable steps. Making the file and changing its schema end with a
// rename, or are one transaction: what comes before is seen by nobody.
const (
	stepMake       durable.Step = "store: make state file"
	stepMakeName   durable.Step = "store: name state file"
	stepCopy       durable.Step = "store: keep copy of older schema"
	stepMigrate    durable.Step = "store: change schema"
	stepRoom       durable.Step = "store: check room"
	stepRoomRemove durable.Step = "store: end check of room"
)

// Each transaction is a step of its own, so that crashes at each can be counted.
const (
	commitCertificate   durable.Step = "store: commit certificate"
	commitCertificates  durable.Step = "store: commit certificates"
	commitRetired       durable.Step = "store: commit certificates put aside"
	commitRestored      durable.Step = "store: commit certificates taken back"
	commitForgotten     durable.Step = "store: commit certificate forgotten"
	commitOrder         durable.Step = "store: commit order"
	commitOrderResult   durable.Step = "store: commit result of order"
	commitOrderProgress durable.Step = "store: commit progress of order"
	commitOrdersTold    durable.Step = "store: commit orders told"
	commitOrderDeleted  durable.Step = "store: commit order deleted"
	commitEvent         durable.Step = "store: commit fact"
	commitEventsAcked   durable.Step = "store: commit facts acknowledged"
	commitIdentity      durable.Step = "store: commit identity"
	commitIssuerState   durable.Step = "store: commit state of issuer"
	commitTurns         durable.Step = "store: commit turns"
	commitSyncState     durable.Step = "store: commit state of sync"
	commitClockMark     durable.Step = "store: commit mark of clock"
	commitDesired       durable.Step = "store: commit desired state"
	commitRefusal       durable.Step = "store: commit refusal of desired state"
	commitAccepted      durable.Step = "store: commit accepted definitions"
	commitCommands      durable.Step = "store: commit commands"
	commitCommand       durable.Step = "store: commit change of command"
)
