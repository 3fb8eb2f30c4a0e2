package health

import (
	"encoding/json"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/wire"
)

// Known is what an agent reported, and that the built-in CA has revoked the
// certificate, where its host does not know yet.
func Known(view *fleet.View, row *fleet.Certificate) wire.Summary {
	return withRevocation(SummaryOf(row), view, row)
}

// Standing is Known without the names, for who goes through many certificates: to read
// and check them takes a good part of the time.
func Standing(view *fleet.View, row *fleet.Certificate) wire.Summary {
	var c struct {
		plain
		Names json.RawMessage `json:"names"` // hides that of the summary
	}
	if json.Unmarshal(row.Data, &c) != nil {
		return Known(view, row)
	}
	return withRevocation(wire.Summary(c.plain), view, row)
}

type plain wire.Summary

func withRevocation(c wire.Summary, view *fleet.View, row *fleet.Certificate) wire.Summary {
	if revoked := RevocationOf(view, row); revoked != nil && c.RevokedAt.IsZero() {
		c.RevokedAt, c.RevocationReason = revoked.At, revoked.Reason
	}
	return c
}

// RevocationOf is what the built-in CA has to say of the certificate of a row; nil if
// it has not revoked it.
func RevocationOf(view *fleet.View, row *fleet.Certificate) *fleet.Revocation {
	if row.Columns.Serial == "" {
		return nil
	}
	if revoked, ok := view.Revocation(row.Columns.Serial); ok && revoked.Agent == row.Agent {
		return revoked
	}
	return nil
}

// SummaryOf reads a row. Only rows that can be read are accepted from agents;
// should one be damaged all the same, its columns are what is known of it, and
// its state is one that nobody takes for good.
func SummaryOf(row *fleet.Certificate) wire.Summary {
	var c wire.Summary
	if err := json.Unmarshal(row.Data, &c); err == nil {
		return c
	}
	return wire.Summary{
		State: "unreadable", Issuer: row.Columns.Issuer, Serial: row.Columns.Serial,
		Fingerprint: row.Columns.Fingerprint, NotAfter: row.Columns.NotAfter,
	}
}
