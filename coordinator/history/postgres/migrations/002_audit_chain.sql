-- What a fact of the audit trail changed, and its place in the chain over the trail: the
-- hash of the fact before it, and its own. Routine facts have none, nor has what was
-- stored before the chain was begun.
alter table certctl.facts
	add column before json,
	add column after  json,
	add column prev   bytea,
	add column hash   bytea;
