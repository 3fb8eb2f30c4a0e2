package fleet

// Level counts what nodes understand: it grows with each release that adds a
// type of command, a version of one, or a table of snapshots. A node announces
// its own, and the leader appends no command that a member does not understand.
//
// Level 1 is that of the versions that did not announce any.
const Level uint32 = 4

// ordersLevel is that from which on orders at authorities are known.
const ordersLevel = 3

// daysLevel is that from which on days are recorded, and what agents say of a renewal
// has its issuer and its reason.
const daysLevel = 4

// chainLevel is that from which on the audit trail is a chain.
const chainLevel = 4

// tableLevels tells from which level on there is a table; those that are not listed
// were there before restores were commands. A restore that a node of a lower level
// proposed makes nothing of such a table, as on that node.
var tableLevels = map[Table]uint32{
	TableDays: daysLevel,
}

// levels tells from which level on a type of command is understood in a version.
// What is not listed is understood from level 1 on. testdata/levels.golden holds
// what each level understands.
var levels = map[Type]map[uint8]uint32{
	TypeInitClusterCA:   {1: 2},
	TypeChangeClusterCA: {1: 2},
	TypeCreateJoinToken: {1: 2},
	TypeRevokeJoinToken: {1: 2},
	TypeUseJoinToken:    {1: 2},
	TypeAnnounceNode:    {1: 2},
	TypeForgetNode:      {1: 2},
	TypeNoteRestore:     {1: 2},
	TypeStageRestore:    {1: 2},
	TypeApplyRestore:    {1: 2},
	TypeDropRestore:     {1: 2},
	TypeNoteTransfer:    {1: 3},
	TypeSyncAgent:       {5: ordersLevel, 6: daysLevel},
	TypeClaimOrder:      {1: ordersLevel},
	TypeRecordOrder:     {1: ordersLevel},
	TypeCancelOrder:     {1: ordersLevel},
	TypeRetryOrder:      {1: ordersLevel},
	TypeResolveOrder:    {1: ordersLevel},
	TypeRevokeOrder:     {1: ordersLevel},
	TypeNotePrune:       {1: 3},
	TypeCreateAPIToken:  {2: 4},
	TypeRotateAPIToken:  {1: 4},
	TypeRecordDay:       {1: daysLevel},
	TypeBeginAuditChain: {1: chainLevel},
}

// RequiredLevel is the level that a node needs to apply a command: that after
// Level for one that this version does not know itself. One that may be passed
// over needs none.
func RequiredLevel(c Command) uint32 {
	if c.Ignorable {
		return 1
	}
	if h, ok := handlers[c.Type]; !ok || c.Version > h.version {
		return Level + 1
	}
	level, ok := levels[c.Type][c.Version]
	if !ok {
		return 1
	}
	if c.Type == TypeApplyRestore {
		var restore ApplyRestore
		if decoder.Unmarshal(c.Payload, &restore) == nil {
			level = max(level, restore.Level)
		}
	}
	return level
}
