package store

import "github.com/certctl/certctl/shared/durable"

// The store's durable steps. Making the file and changing its schema end with a
// rename, or are one transaction: what comes before is seen by nobody.
const (
	stepMake       durable.Step = "store: make state file"
	stepMakeName   durable.Step = "store: name state file"
	stepCopy       durable.Step = "store: keep copy of older schema"
	stepMigrate    durable.Step = "store: change schema"
	stepCommit     durable.Step = "store: commit"
	stepRoom       durable.Step = "store: check room"
	stepRoomRemove durable.Step = "store: end check of room"
)
