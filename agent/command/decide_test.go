package command

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// pair is a record with one pair in service, and what is done to it.
func pair(serial string, change func(*store.Certificate)) *store.Certificate {
	rec := &store.Certificate{Name: "www", Issuer: "ca", Phase: store.PhaseIdle, Current: &store.Generation{Number: 1, Serial: serial, KeyID: "key-" + serial}}
	if change != nil {
		change(rec)
	}
	return rec
}

func TestDecide(t *testing.T) {
	bound := func(c store.Command) store.Command {
		c.Bound, c.Serial, c.KeyID = true, "aa", "key-aa"
		return c
	}
	renew := store.Command{Request: wire.Command{ID: "command-1", Kind: wire.CommandRenew, Certificate: "www"}, State: wire.CommandAccepted}
	revoke := func(reason int) store.Command {
		c := renew
		c.Request.Kind, c.Request.Reason = wire.CommandRevoke, reason
		return c
	}
	with := func(c store.Command, change func(*store.Command)) store.Command { change(&c); return c }
	asked := func(c *store.Command) { c.Asked = true }
	old, fresh := pair("aa", nil), pair("bb", nil)
	forced := pair("aa", func(r *store.Certificate) { r.Forced = true })
	failing := func(at time.Time, attention string) *store.Certificate {
		return pair("aa", func(r *store.Certificate) { r.Forced, r.LastErrorAt, r.NeedsAttention = true, at, attention })
	}
	underWay := pair("aa", func(r *store.Certificate) { r.Phase = store.PhaseOrderPlaced })
	for name, c := range map[string]struct {
		command store.Command
		rec     *store.Certificate
		want    step
		state   wire.CommandState
	}{
		"over":                          {command: with(renew, func(c *store.Command) { c.State = wire.CommandDone }), rec: old, want: stepWait},
		"unknown kind":                  {command: with(renew, func(c *store.Command) { c.Request.Kind = "reboot" }), rec: old, want: stepEnd, state: wire.CommandRefused},
		"reason that only holds":        {command: revoke(6), rec: old, want: stepEnd, state: wire.CommandRefused},
		"its time has not come":         {command: with(renew, func(c *store.Command) { c.Request.NotBefore = noon.Add(time.Second) }), rec: old, want: stepWait},
		"its time has come":             {command: with(renew, func(c *store.Command) { c.Request.NotBefore = noon }), rec: old, want: stepBind},
		"no such certificate":           {command: renew, want: stepEnd, state: wire.CommandRefused},
		"bound":                         {command: bound(renew), rec: old, want: stepRenew},
		"asked":                         {command: with(bound(renew), asked), rec: forced, want: stepWait},
		"asked, under way":              {command: with(bound(renew), asked), rec: underWay, want: stepWait},
		"asked, failing":                {command: with(bound(renew), asked), rec: failing(noon, ""), want: stepWait},
		"asked, a person is needed":     {command: with(bound(renew), asked), rec: failing(noon, "no"), want: stepEnd, state: wire.CommandFailed},
		"a person was needed before":    {command: with(bound(renew), func(c *store.Command) { c.Asked, c.AskedAt = true, noon.Add(1) }), rec: failing(noon, "no"), want: stepWait},
		"asked, and the record forgot":  {command: with(bound(renew), asked), rec: old, want: stepRenew},
		"replaced":                      {command: with(bound(renew), asked), rec: fresh, want: stepEnd, state: wire.CommandDone},
		"replaced before it was asked":  {command: bound(renew), rec: fresh, want: stepEnd, state: wire.CommandDone},
		"another one with the same key": {command: bound(renew), rec: pair("bb", func(r *store.Certificate) { r.Current.KeyID = "key-aa" }), want: stepRenew},
		"gone":                          {command: with(bound(renew), asked), want: stepEnd, state: wire.CommandFailed},
		"none in service":               {command: with(renew, func(c *store.Command) { c.Bound = true }), rec: pair("", func(r *store.Certificate) { r.Current = nil }), want: stepRenew},
		"the first one is in service":   {command: with(renew, func(c *store.Command) { c.Bound, c.Asked = true, true }), rec: fresh, want: stepEnd, state: wire.CommandDone},

		"superseded: replace first":        {command: bound(revoke(4)), rec: old, want: stepRenew},
		"superseded: wait for it":          {command: with(bound(revoke(4)), asked), rec: forced, want: stepWait},
		"superseded: a person is needed":   {command: with(bound(revoke(4)), asked), rec: failing(noon, "no"), want: stepWait},
		"superseded: then revoke":          {command: with(bound(revoke(4)), asked), rec: fresh, want: stepRevoke},
		"superseded: the issuer is away":   {command: with(bound(revoke(4)), func(c *store.Command) { c.Asked, c.RevokeAttempt, c.RetryAt = true, 1, noon.Add(1) }), rec: fresh, want: stepWait},
		"superseded: again":                {command: with(bound(revoke(4)), func(c *store.Command) { c.Asked, c.RevokeAttempt, c.RetryAt = true, 1, noon }), rec: fresh, want: stepRevoke},
		"superseded: revoked":              {command: with(bound(revoke(4)), func(c *store.Command) { c.Asked, c.Revoked = true, noon }), rec: fresh, want: stepEnd, state: wire.CommandDone},
		"superseded: never revoked":        {command: with(bound(revoke(4)), func(c *store.Command) { c.Asked, c.RevokeProblem = true, "no" }), rec: fresh, want: stepEnd, state: wire.CommandFailed},
		"superseded: not managed any more": {command: bound(revoke(4)), want: stepRevoke},
		"revoked, not managed any more":    {command: with(bound(revoke(4)), func(c *store.Command) { c.Revoked = noon }), want: stepEnd, state: wire.CommandDone},

		"compromised: revoke first":                    {command: bound(revoke(1)), rec: old, want: stepRevoke},
		"compromised: of the authority":                {command: bound(revoke(2)), rec: old, want: stepRevoke},
		"compromised: then replace":                    {command: with(bound(revoke(1)), func(c *store.Command) { c.Revoked = noon }), rec: old, want: stepRenew},
		"compromised: replace when the issuer is away": {command: with(bound(revoke(1)), func(c *store.Command) { c.RevokeAttempt, c.RetryAt = 1, noon.Add(1) }), rec: old, want: stepRenew},
		"compromised: replace when it refuses":         {command: with(bound(revoke(1)), func(c *store.Command) { c.RevokeProblem = "no" }), rec: old, want: stepRenew},
		"compromised: replaced, not yet revoked":       {command: with(bound(revoke(1)), func(c *store.Command) { c.Asked, c.RetryAt = true, noon.Add(1) }), rec: fresh, want: stepWait},
		"compromised: both":                            {command: with(bound(revoke(1)), func(c *store.Command) { c.Asked, c.Revoked = true, noon }), rec: fresh, want: stepEnd, state: wire.CommandDone},
	} {
		t.Run(name, func(t *testing.T) {
			got := decide(&c.command, c.rec, noon)
			assert.Equal(t, c.want, got.step)
			assert.Equal(t, c.state, got.state)
			assert.Equal(t, c.want == stepEnd, got.detail != "")
		})
	}
}

func TestBind(t *testing.T) {
	command := func(kind wire.CommandKind, serial string) *store.Command {
		return &store.Command{Request: wire.Command{ID: "command-1", Kind: kind, Certificate: "www", Serial: serial}, State: wire.CommandAccepted}
	}
	c := command(wire.CommandRenew, "")
	assert.Equal(t, stepWait, bind(c, pair("aa", nil)).step)
	assert.True(t, c.Bound)
	assert.Equal(t, "aa", c.Serial)
	assert.Equal(t, "key-aa", c.KeyID)
	assert.Equal(t, wire.CommandDone, bind(command(wire.CommandRenew, "aa"), pair("bb", nil)).state, "it is done already")
	assert.Equal(t, wire.CommandFailed, bind(command(wire.CommandRevoke, "aa"), pair("bb", nil)).state, "a certificate that is not here cannot be revoked from here")
	assert.Equal(t, wire.CommandFailed, bind(command(wire.CommandRevoke, ""), pair("", func(r *store.Certificate) { r.Current = nil })).state)
	assert.Equal(t, wire.CommandFailed, bind(command(wire.CommandRevoke, "aa"), pair("aa", nil)).state, "a certificate that cannot be read")
	assert.False(t, bind(command(wire.CommandRenew, "aa"), nil).step == stepEnd)
}
