-- The facts of a cluster, in the order of its log. A fact is at (log_index, ordinal),
-- once. Routine facts lie in one table for each month, so that old ones go without
-- work; facts of the audit trail lie apart and stay.
create table certctl.facts (
	log_index bigint      not null,
	ordinal   integer     not null,
	audited   boolean     not null,
	time      timestamptz not null,
	nanos     smallint    not null, -- below the microsecond of time
	kind      text        not null,
	actor     text        not null,
	object    text        not null,
	agent     text        not null,
	detail    json,
	audit     bigint      not null, -- number in the audit trail; 0 for routine facts
	primary key (log_index, ordinal, audited, time),
	check (audited = (audit > 0))
) partition by list (audited);

create table certctl.facts_audit partition of certctl.facts for values in (true);
create table certctl.facts_routine partition of certctl.facts for values in (false) partition by range (time);

create index facts_agent on certctl.facts (agent, log_index, ordinal);
create index facts_object on certctl.facts (object, log_index, ordinal);
create index facts_kind on certctl.facts (kind, log_index, ordinal);
create index facts_time on certctl.facts using brin (time);
create index facts_audit_actor on certctl.facts_audit (actor, log_index, ordinal);
create unique index facts_audit_number on certctl.facts_audit (audit);

-- How far the export has come: one row, changed in the transactions that store facts.
create table certctl.export (
	only_row        boolean     primary key default true check (only_row),
	cluster_id      text        not null,
	incarnation     uuid        not null default gen_random_uuid(), -- of these tables
	revision        bigint      not null default 0,  -- of this row
	through         bigint      not null default 0,  -- newest log index whose facts are here
	facts           bigint      not null default 0,  -- stored in all
	floor           bigint      not null default 0,  -- newest log index of which routine facts were gone before they came here
	last_index      bigint      not null default 0,  -- the newest fact, and of what it is made
	last_ordinal    integer     not null default 0,
	last_digest     bytea       not null default '',
	audit_index     bigint      not null default 0,  -- the newest fact of the audit trail
	audit_ordinal   integer     not null default 0,
	audit_digest    bytea       not null default '',
	changed_at      timestamptz not null default now()
);

-- Ranges of log indexes up to through whose facts are not here, because the node that
-- exported did not have them. They are filled when a leader has them.
create table certctl.export_gaps (
	first bigint primary key,
	last  bigint not null check (last >= first)
);
