package fleet

import "fmt"

// clusterTables are what a cluster keeps of its own when the state is replaced
// by that of a snapshot: who its nodes are and how they trust each other.
var clusterTables = []Table{TableClusterCA, TableNodes, TableJoinTokens}

// KeepCluster makes of the state of a snapshot what a live cluster goes on from:
// its own tables in place of those of the snapshot, the API token with the id
// apiToken besides the snapshot's ("" for none), and the log index that the
// snapshot takes in the cluster's log. s is a state of the caller's own that
// the snapshot was restored to; live is not changed. Persisting s gives the
// stream to restore.
//
// The index has to lie beyond both states. Every table counts as changed at it,
// so that no entity tag of before matches. Audit facts are numbered on from the
// higher of the two numbers, and so are revocation lists: neither number comes
// twice with another content. The chain of the audit trail goes on from the cluster's
// own, since its journal does.
func (s *State) KeepCluster(live *View, apiToken string, index uint64) error {
	return s.keepCluster(live, apiToken, index, Level)
}

// keepCluster is KeepCluster as nodes of a level do it, which know no table of a later
// one.
func (s *State) keepCluster(live *View, apiToken string, index uint64, level uint32) error {
	if index <= s.Index() || index <= live.Index() {
		return fmt.Errorf("fleet state: the restored state cannot have the index %d: the snapshot is of %d, the cluster at %d", index, s.Index(), live.Index())
	}
	c := &change{txn: s.db.Load().Write(), index: index, infos: map[Table]*tableInfo{}}
	if stored := find[position](c, tablePosition, indexID, key("position")); stored != nil {
		c.position = *stored
	}
	if kept, ok := get[position](live, tablePosition, indexID, key("position")); ok {
		c.position.Audit = max(c.position.Audit, kept.Audit)
		c.position.Chain = kept.Chain
	} else {
		c.position.Chain = nil
	}

	for _, table := range clusterTables {
		c.keepTable(live, table)
	}
	if apiToken != "" {
		token, ok := live.APIToken(apiToken)
		if !ok {
			return fmt.Errorf("fleet state: the cluster has no API token %q to keep", apiToken)
		}
		c.keepAPIToken(token)
	}
	c.keepListNumber(live)

	for _, schema := range schemas {
		if schema.table != tablePosition && schema.table != tableInfos && tableLevels[schema.table] <= level {
			c.info(schema.table).Version = index
		}
	}
	c.finish()
	if c.err != nil {
		return fmt.Errorf("fleet state: keep the cluster's own tables: %w", c.err)
	}
	s.db.Store(c.txn.Commit())
	s.index.Store(index)
	return nil
}

func (c *change) keepTable(live *View, table Table) {
	stale := c.scan(table, indexID, nil)
	for record := stale.Next(); record != nil; record = stale.Next() {
		c.delete(table, record)
	}
	kept := live.scan(table, indexID, nil)
	for record := kept.Next(); record != nil; record = kept.Next() {
		c.insert(table, record)
	}
}

// keepAPIToken puts a token in place of the one that has its id or its secret.
func (c *change) keepAPIToken(token *APIToken) {
	for _, stale := range []*APIToken{
		find[APIToken](c, TableAPITokens, indexHash, key(token.Hash[:])),
		find[APIToken](c, TableAPITokens, indexID, key(token.ID)),
	} {
		if stale != nil && (stale.ID != token.ID || stale.Hash != token.Hash) {
			c.delete(TableAPITokens, stale)
		}
	}
	if find[APIToken](c, TableAPITokens, indexID, key(token.ID)) != nil {
		c.put(TableAPITokens, token)
		return
	}
	c.insert(TableAPITokens, token)
}

// keepListNumber gives the snapshot's revocation list a number that the live
// cluster has not published, and leaves it behind, so that the next one is made
// at once.
func (c *change) keepListNumber(live *View) {
	published, ok := get[RevocationList](live, TableRevocationList, indexID, nil)
	if !ok {
		return
	}
	list := find[RevocationList](c, TableRevocationList, indexID, key("list"))
	if list != nil && list.Number > published.Number {
		return
	}
	next := *published
	next.Number, next.Index = published.Number+1, c.index-1
	if list == nil {
		c.insert(TableRevocationList, &next)
		return
	}
	next.ThisUpdate, next.NextUpdate = list.ThisUpdate, list.NextUpdate
	c.put(TableRevocationList, &next)
}
