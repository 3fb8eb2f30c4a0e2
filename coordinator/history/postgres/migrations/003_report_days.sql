-- Sums of each day, one row for each, out of the facts that have them. A day that was
-- recorded twice, because the state was set back in between, counts as it was last.
create view certctl.report_days as
select distinct on (object)
	object::date                                          as day,
	time                                                  as recorded_at,
	(detail -> 'standing' ->> 'counted_at')::timestamptz  as counted_at, -- null: nobody counted the fleet then
	(detail -> 'activity' ->> 'partial')::boolean         as partial,    -- facts of the day are missing in the next four
	(detail -> 'activity' ->> 'renewed')::numeric         as renewed,
	(detail -> 'activity' ->> 'failed')::numeric          as failed,
	(detail -> 'activity' ->> 'renewed_offline')::numeric as renewed_offline,
	(detail -> 'activity' ->> 'events_dropped')::numeric  as facts_dropped, -- null: not known
	(detail -> 'standing' ->> 'hosts')::numeric           as hosts,
	(detail -> 'standing' ->> 'connected')::numeric       as connected,
	(detail -> 'standing' ->> 'cut_off')::numeric         as cut_off,
	(detail -> 'standing' ->> 'retired')::numeric         as retired,
	(detail -> 'standing' ->> 'at_risk')::numeric         as at_risk,
	(detail -> 'standing' ->> 'not_safe')::numeric        as not_safe,
	(detail -> 'standing' ->> 'horizon')::timestamptz     as safe_until,
	(detail -> 'standing' ->> 'clock_skewed')::numeric    as clock_wrong,
	(detail -> 'standing' ->> 'certificates')::numeric    as certificates,
	(detail -> 'standing' ->> 'expired')::numeric         as expired,
	(detail -> 'standing' ->> 'attention')::numeric       as needing_attention,
	(detail -> 'standing' ->> 'deployments_verified')::numeric as deployments_verified,
	(detail -> 'standing' ->> 'deployments_failed')::numeric   as deployments_failed,
	detail -> 'standing' -> 'expiring_weeks'              as expiring_weeks, -- from the week of counted_at on
	detail -> 'standing' -> 'risks'                       as risks,
	detail -> 'standing' -> 'states'                      as states,
	detail -> 'standing' -> 'health'                      as health,
	detail -> 'standing' -> 'versions'                    as versions
from certctl.facts
where kind = 'report.day' and not audited
order by object, log_index desc, ordinal desc;

-- What came in on each day, by issuer, and the failures by their reasons. Names in round
-- brackets are none of issuers or reasons: (other) for those that are not listed by
-- themselves, (unknown) for what was not told.
create view certctl.report_day_issuers as
select
	d.day,
	i ->> 'issuer'                     as issuer,
	(i ->> 'renewed')::numeric         as renewed,
	(i ->> 'failed')::numeric          as failed,
	(i ->> 'renewed_offline')::numeric as renewed_offline,
	i -> 'reasons'                     as reasons
from (
	select distinct on (object) object::date as day, detail from certctl.facts
	where kind = 'report.day' and not audited
	order by object, log_index desc, ordinal desc
) d, json_array_elements(d.detail -> 'activity' -> 'issuers') i;

create view certctl.report_day_reasons as
select
	d.day,
	d.issuer,
	r ->> 'name'             as reason,
	(r ->> 'count')::numeric as failed
from certctl.report_day_issuers d, json_array_elements(d.reasons) r;
