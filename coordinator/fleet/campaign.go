package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/certctl/certctl/shared/jitter"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Bounds of campaigns.
const (
	MaxCampaigns    = 1000
	MaxRunning      = 20
	MaxCampaignOver = 30 * 24 * time.Hour
	// campaignPatience is how long after its window a campaign still reaches
	// hosts that were away.
	campaignPatience = 30 * 24 * time.Hour
	// campaignsFor is how long a campaign is kept after that.
	campaignsFor = 90 * 24 * time.Hour
)

// Campaign is a renewal of many certificates, spread over a window. It is one
// record however many there are: its targets are the certificates that match it
// and that were in service before it began, which the state knows by the index
// of the entry that brought their serial numbers.
type Campaign struct {
	ID       string `cbor:"1,keyasint"`
	Selector string `cbor:"2,keyasint"` // of labels; parsed by the proposer
	Issuer   string `cbor:"3,keyasint,omitempty"`
	// ExpiringBefore limits it to certificates that expire before; zero is all.
	ExpiringBefore time.Time     `cbor:"4,keyasint"`
	Over           time.Duration `cbor:"5,keyasint,omitempty"`
	Targets        int           `cbor:"6,keyasint"` // as its proposer counted them
	Reason         string        `cbor:"7,keyasint,omitempty"`
	CreatedAt      time.Time     `cbor:"8,keyasint"`
	CreatedBy      string        `cbor:"9,keyasint,omitempty"`
	Index          uint64        `cbor:"10,keyasint"` // of the entry that began it
	CancelledAt    time.Time     `cbor:"11,keyasint"` // zero unless cancelled
	CancelledBy    string        `cbor:"12,keyasint,omitempty"`
	ModifyIndex    uint64        `cbor:"13,keyasint"`
	// NamePattern limits it to certificates that hold a name of this pattern (see
	// pki.NamePattern); empty is all. Parsed by the proposer.
	NamePattern string `cbor:"14,keyasint,omitempty"`
}

// Running reports whether the campaign asks for renewals at a time.
func (c *Campaign) Running(now time.Time) bool { return c.CancelledAt.IsZero() && now.Before(c.Ends()) }

// Ends is the moment from which on the campaign asks no more.
func (c *Campaign) Ends() time.Time { return c.CreatedAt.Add(c.Over + campaignPatience) }

// Covers reports whether a certificate is, or was before it was replaced, one
// of the campaign's, but for its host's labels.
func (c *Campaign) Covers(row *Certificate) bool {
	return row.Columns.Serial != "" && (c.Issuer == "" || row.Columns.Issuer == c.Issuer) &&
		(c.NamePattern == "" || holdsName(row.Columns.Names, c.NamePattern))
}

// holdsName reports whether one of the names is of a pattern.
func holdsName(names []string, pattern string) bool {
	patterns, err := pki.ParseNamePatterns([]string{pattern})
	if err != nil {
		return false // of a version that knows more; it is nobody's here
	}
	for _, name := range names {
		if one, err := pki.ParseNames([]string{name}); err == nil && patterns.Allow(one) == nil {
			return true
		}
	}
	return false
}

// Replaced reports whether another certificate was put into service since the
// campaign began.
func (c *Campaign) Replaced(row *Certificate) bool { return row.SerialIndex > c.Index }

// Wants reports whether the campaign still waits for a certificate, but for the
// labels of its host.
func (c *Campaign) Wants(row *Certificate) bool {
	return c.Covers(row) && !c.Replaced(row) && (c.ExpiringBefore.IsZero() || row.Columns.NotAfter.Before(c.ExpiringBefore))
}

// CommandID is the id of the campaign's command for a certificate.
func (c *Campaign) CommandID(agent, certificate string) string {
	sum := sha256.Sum256([]byte(c.ID + "\x00" + agent + "\x00" + certificate))
	return c.ID + "-" + hex.EncodeToString(sum[:12])
}

// Due is when a certificate's turn comes: a place in the window that is its own,
// the same on every node.
func (c *Campaign) Due(agent, certificate string) time.Time {
	return c.CreatedAt.Add(jitter.Spread(c.CommandID(agent, certificate), c.Over))
}

// BeginCampaign begins a renewal of many certificates. An id that exists
// changes nothing.
//
// Codes: CodeInvalid, CodeOverloaded.
type BeginCampaign struct {
	Actor          string        `cbor:"1,keyasint,omitempty"`
	ID             string        `cbor:"2,keyasint"`
	Selector       string        `cbor:"3,keyasint"`
	Issuer         string        `cbor:"4,keyasint,omitempty"`
	ExpiringBefore time.Time     `cbor:"5,keyasint"`
	Over           time.Duration `cbor:"6,keyasint,omitempty"`
	Targets        int           `cbor:"7,keyasint"`
	Reason         string        `cbor:"8,keyasint,omitempty"`
	NamePattern    string        `cbor:"9,keyasint,omitempty"`
}

// CancelCampaign ends a campaign: hosts are asked for nothing more. Cancelling
// it again changes nothing; an unknown id gives CodeNotFound.
type CancelCampaign struct {
	Actor string `cbor:"1,keyasint,omitempty"`
	ID    string `cbor:"2,keyasint"`
}

func (BeginCampaign) commandType() Type  { return TypeBeginCampaign }
func (CancelCampaign) commandType() Type { return TypeCancelCampaign }

func beginCampaign(c *change, p *BeginCampaign) Result {
	if len(p.ID) != 16 || p.Selector == "" || p.Over < 0 || p.Over > MaxCampaignOver {
		return refuse(wire.CodeInvalid, "over", "the renewal has no id, no selector, or a window that is too long", "")
	}
	running, kept := 0, 0
	for records := c.scan(TableCampaigns, indexID, nil); ; {
		other, ok := records.Next().(*Campaign)
		if !ok {
			break
		}
		if other.ID == p.ID {
			return Result{}
		}
		if c.at.After(other.CreatedAt.Add(other.Over + campaignPatience + campaignsFor)) {
			c.delete(TableCampaigns, other)
			continue
		}
		if kept++; other.Running(c.at) {
			running++
		}
	}
	if running >= MaxRunning || kept >= MaxCampaigns {
		return refuse(wire.CodeOverloaded, "", "too many mass renewals are under way", "cancel one that is not needed any more, or wait")
	}
	campaign := &Campaign{
		ID: p.ID, Selector: p.Selector, Issuer: p.Issuer, ExpiringBefore: p.ExpiringBefore, Over: p.Over, Targets: p.Targets,
		Reason: p.Reason, CreatedAt: c.at, CreatedBy: p.Actor, Index: c.index, ModifyIndex: c.index, NamePattern: p.NamePattern,
	}
	c.insert(TableCampaigns, campaign)
	c.audit(Fact{Kind: KindCampaignBegun, Actor: p.Actor, Object: p.ID}, map[string]any{
		"selector": p.Selector, "issuer": p.Issuer, "name_pattern": p.NamePattern, "over_seconds": int64(p.Over / time.Second), "targets": p.Targets, "reason": p.Reason,
	}).changed(nil, campaign.picture())
	return Result{}
}

func cancelCampaign(c *change, p *CancelCampaign) Result {
	stored := find[Campaign](c, TableCampaigns, indexID, key(p.ID))
	if stored == nil {
		return refuse(wire.CodeNotFound, "id", "there is no mass renewal with this id", "list the renewals to see their ids")
	}
	if !stored.CancelledAt.IsZero() {
		return Result{}
	}
	next := edit(stored)
	next.CancelledAt, next.CancelledBy, next.ModifyIndex = c.at, p.Actor, c.index
	c.put(TableCampaigns, next)
	c.audit(Fact{Kind: KindCampaignCancelled, Actor: p.Actor, Object: p.ID}, nil).changed(stored.picture(), next.picture())
	return Result{}
}

// Campaign looks a campaign up.
func (v *View) Campaign(id string) (*Campaign, bool) {
	return get[Campaign](v, TableCampaigns, indexID, key(id))
}

// Campaigns lists all campaigns by id.
func (v *View) Campaigns() []*Campaign {
	return collect[Campaign](v.scan(TableCampaigns, indexID, nil))
}
