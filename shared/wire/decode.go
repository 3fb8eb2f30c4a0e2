package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Decode reads one JSON value of at most limit bytes from r into dst. What is
// wrong comes back as a *Problem that a server can send as it is.
func Decode(r io.Reader, limit int64, dst any) *Problem {
	body, problem := ReadBody(r, limit)
	if problem != nil {
		return problem
	}
	if err := json.Unmarshal(body, dst); err != nil {
		var syntax *json.SyntaxError
		var kind *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syntax):
			return invalid("", fmt.Sprintf("the body is not JSON: %v at byte %d of %d", err, syntax.Offset, len(body)), "send the whole body")
		case errors.As(err, &kind):
			return invalid(kind.Field, clip(fmt.Sprintf("expected %s, found %s", kind.Type, kind.Value)), "")
		}
		return invalid("", clip(fmt.Sprintf("the body does not fit: %v", err)), "")
	}
	return nil
}

// ReadBody reads a body of at most limit bytes whole.
func ReadBody(r io.Reader, limit int64) ([]byte, *Problem) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, invalid("", clip(fmt.Sprintf("the body could not be read whole: %v", err)), "send it again")
	}
	if int64(len(body)) > limit {
		return nil, &Problem{
			Title: "Request body too large", Status: http.StatusRequestEntityTooLarge, Code: CodeBodyTooLarge,
			Detail: fmt.Sprintf("the body is larger than %d bytes", limit),
			Mend:   "send it in several requests",
		}
	}
	return body, nil
}

// clip bounds what an answer, and the log that it goes into, repeat of a body
// that anybody may have sent.
func clip(detail string) string {
	const most = 256
	if len(detail) <= most {
		return detail
	}
	return strings.ToValidUTF8(detail[:most], "") + "…"
}

func invalid(field, detail, mend string) *Problem {
	return &Problem{
		Title: "Request not valid", Status: http.StatusBadRequest, Code: CodeInvalid,
		Field: field, Detail: detail, Mend: mend,
	}
}

// Validate checks what can be checked without any other state: limits, order
// and shape. It returns nil for a request that is safe to apply.
func (r *SyncRequest) Validate() *Problem {
	if p := checkProtocol(r.Protocol); p != nil {
		return p
	}
	if p := r.Host.validate("host"); p != nil {
		return p
	}
	switch {
	case !validID(r.BootID):
		return invalid("boot_id", "expected 8 to 64 letters, digits, - or _", "")
	case r.Sequence == 0:
		return invalid("sequence", "the first request of a boot is number 1", "")
	case r.BaseRevision > r.Revision || r.Revision > r.HeadRevision:
		return invalid("revision", fmt.Sprintf("expected base_revision <= revision <= head_revision, found %d, %d, %d",
			r.BaseRevision, r.Revision, r.HeadRevision), "")
	case !validServersDigest(r.ServersDigest):
		return invalid("servers_digest", "expected 64 hexadecimal digits", "")
	case r.ResyncID != "" && !validID(r.ResyncID):
		return invalid("resync_id", "expected the id that the coordinator gave", "")
	case len(r.Rows)+len(r.Removed) > MaxRows:
		return invalid("rows", fmt.Sprintf("%d rows and removals; expected at most %d", len(r.Rows)+len(r.Removed), MaxRows), "send several pages")
	case len(r.Events) > MaxEvents:
		return invalid("events", fmt.Sprintf("%d events; expected at most %d", len(r.Events), MaxEvents), "send the rest with the next sync")
	case len(r.Orders) > MaxOrders:
		return invalid("orders", fmt.Sprintf("%d orders; expected at most %d", len(r.Orders), MaxOrders), "send the rest with the next sync")
	case len(r.Collected) > MaxOrders:
		return invalid("collected", fmt.Sprintf("%d orders; expected at most %d", len(r.Collected), MaxOrders), "send the rest with the next sync")
	}
	if p := r.validateRows(); p != nil {
		return p
	}
	if p := r.validateEvents(); p != nil {
		return p
	}
	if p := r.validateOrders(); p != nil {
		return p
	}
	if p := r.Trust.validate("trust"); p != nil {
		return p
	}
	return r.validateDesired()
}

func (r *SyncRequest) validateRows() *Problem {
	seen := make(map[string]bool, len(r.Rows)+len(r.Removed))
	taken := make(map[uint64]bool, len(r.Rows)+len(r.Removed))
	check := func(field, name string, revision uint64) *Problem {
		switch {
		case !ValidName(name):
			return invalid(field+".name", fmt.Sprintf("expected 1 to %d characters without control characters", MaxNameLen), "")
		case seen[name]:
			return invalid(field+".name", fmt.Sprintf("%q stands twice in one request", name), "")
		case revision <= r.BaseRevision || revision > r.Revision:
			return invalid(field+".revision", fmt.Sprintf("%d is not above base_revision %d and at most revision %d", revision, r.BaseRevision, r.Revision), "")
		case taken[revision]:
			return invalid(field+".revision", fmt.Sprintf("%d stands twice in one request; each change has a revision of its own", revision), "")
		}
		seen[name], taken[revision] = true, true
		return nil
	}
	for i, row := range r.Rows {
		field := fmt.Sprintf("rows[%d]", i)
		if p := check(field, row.Name, row.Revision); p != nil {
			return p
		}
		if len(row.Data) == 0 || len(row.Data) > MaxRowBytes {
			return invalid(field+".data", fmt.Sprintf("%d bytes; expected 1 to %d", len(row.Data), MaxRowBytes), "")
		}
		if _, err := row.Summary(); err != nil {
			return invalid(field+".data", clip(err.Error()), "")
		}
	}
	for i, gone := range r.Removed {
		if p := check(fmt.Sprintf("removed[%d]", i), gone.Name, gone.Revision); p != nil {
			return p
		}
	}
	return nil
}

func (r *SyncRequest) validateEvents() *Problem {
	var last uint64
	for i, e := range r.Events {
		field := fmt.Sprintf("events[%d]", i)
		switch {
		case e.Sequence <= last:
			return invalid(field+".sequence", fmt.Sprintf("%d does not follow %d; expected growing numbers", e.Sequence, last), "")
		case e.Kind == "" || len(e.Kind) > MaxNameLen:
			return invalid(field+".kind", "expected a kind of event", "")
		case !validTime(e.At):
			return invalid(field+".at", timeExpected, "")
		case e.Certificate != "" && !ValidName(e.Certificate):
			return invalid(field+".certificate", "expected the name of a managed certificate", "")
		case e.Issuer != "" && !ValidName(e.Issuer):
			return invalid(field+".issuer", "expected the name of an issuer", "")
		case e.Reason != "" && !ValidReason(e.Reason):
			return invalid(field+".reason", fmt.Sprintf("expected at most %d lower-case letters and underscores", MaxReasonLen), "")
		case len(e.Serial) > MaxNameLen || len(e.Detail) > MaxTextLen:
			return invalid(field+".detail", fmt.Sprintf("expected at most %d bytes of text", MaxTextLen), "")
		}
		last = e.Sequence
	}
	return nil
}

func (r *SyncRequest) validateOrders() *Problem {
	seen := make(map[string]bool, len(r.Orders))
	for i, o := range r.Orders {
		field := fmt.Sprintf("orders[%d]", i)
		switch {
		case !validID(o.ID) || seen[o.ID]:
			return invalid(field+".id", "expected an id of 8 to 64 letters, digits, - or _ that stands once", "")
		case !ValidName(o.Certificate):
			return invalid(field+".certificate", "expected the name of a managed certificate", "")
		case len(o.CSR) == 0 || len(o.CSR) > 16<<10:
			return invalid(field+".csr", fmt.Sprintf("%d bytes; expected a DER request of at most 16 KiB", len(o.CSR)), "")
		case o.ValiditySeconds < 0:
			return invalid(field+".validity_seconds", "expected 0 or more", "")
		case len(o.Issuer) > MaxNameLen:
			return invalid(field+".issuer", "expected the name of an issuer", "")
		case !validTime(o.PlacedAt):
			return invalid(field+".placed_at", timeExpected, "")
		}
		seen[o.ID] = true
	}
	for i, id := range r.Collected {
		if !validID(id) {
			return invalid(fmt.Sprintf("collected[%d]", i), "expected the id of an order", "")
		}
	}
	return nil
}

// Summary decodes the row's data.
func (r Row) Summary() (Summary, error) {
	var s Summary
	if err := json.Unmarshal(r.Data, &s); err != nil {
		return Summary{}, fmt.Errorf("row %q is not a summary: %w", r.Name, err)
	}
	switch {
	case len(s.Issuer) > MaxNameLen || len(s.IssuerKind) > MaxNameLen || len(s.State) > MaxNameLen ||
		len(s.Serial) > MaxNameLen || len(s.Fingerprint) > MaxNameLen:
		return Summary{}, fmt.Errorf("row %q has a name that is too long; expected at most %d bytes", r.Name, MaxNameLen)
	case len(s.LastError) > MaxTextLen || len(s.NeedsAttention) > MaxTextLen || len(s.Waiting) > MaxTextLen:
		return Summary{}, fmt.Errorf("row %q has a text that is too long; expected at most %d bytes", r.Name, MaxTextLen)
	case !validTime(s.NotBefore) || !validTime(s.NotAfter) || !validTime(s.SafeUntil) || !validTime(s.RevokedAt):
		return Summary{}, fmt.Errorf("row %q has a date out of range; %s", r.Name, timeExpected)
	}
	return s, nil
}

func (h HostReport) validate(field string) *Problem {
	for name, text := range map[string]string{"hostname": h.Hostname, "os": h.OS, "arch": h.Arch, "version": h.Version} {
		if len(text) > 255 || !utf8.ValidString(text) {
			return invalid(field+"."+name, "expected at most 255 bytes of UTF-8", "")
		}
	}
	if !validTime(h.StartedAt) {
		return invalid(field+".started_at", timeExpected, "")
	}
	if h.SafeUntil != nil && !validTime(*h.SafeUntil) {
		return invalid(field+".safe_until", timeExpected, "")
	}
	if h.NotSafe < 0 || h.NotSafe > MaxNotSafe {
		return invalid(field+".not_safe", fmt.Sprintf("expected a count from 0 to %d", MaxNotSafe), "")
	}
	tooLong := func(text string) bool { return len(text) > MaxHostWarningLen || !utf8.ValidString(text) }
	if len(h.Warnings) > MaxHostWarnings || slices.ContainsFunc(h.Warnings, tooLong) {
		return invalid(field+".warnings", fmt.Sprintf("expected at most %d texts of at most %d bytes of UTF-8", MaxHostWarnings, MaxHostWarningLen), "")
	}
	return nil
}

const timeExpected = "expected a time in the years 1 to 9999, in UTC"

// validTime reports whether a time can be written down again: RFC 3339 has four
// digits for the year, and an offset can lead out of them.
func validTime(t time.Time) bool {
	year := t.UTC().Year()
	return year >= 1 && year <= 9999
}

// Validate checks the shape of an enrolment; the token and the CSR are judged
// by the coordinator.
func (r *EnrollRequest) Validate() *Problem {
	if p := checkProtocol(r.Protocol); p != nil {
		return p
	}
	if len(r.CSR) == 0 || len(r.CSR) > 16<<10 {
		return invalid("csr", fmt.Sprintf("%d bytes; expected a DER request of at most 16 KiB", len(r.CSR)), "")
	}
	return r.Host.validate("host")
}

// Validate checks the shape of an identity renewal.
func (r *IdentityRequest) Validate() *Problem {
	if p := checkProtocol(r.Protocol); p != nil {
		return p
	}
	if len(r.CSR) == 0 || len(r.CSR) > 16<<10 {
		return invalid("csr", fmt.Sprintf("%d bytes; expected a DER request of at most 16 KiB", len(r.CSR)), "")
	}
	return nil
}

func checkProtocol(version int) *Problem {
	if version == Protocol {
		return nil
	}
	return &Problem{
		Title: "Protocol not supported", Status: http.StatusBadRequest, Code: CodeProtocol, Field: "protocol",
		Detail: fmt.Sprintf("the request speaks version %d of the agent protocol; this coordinator speaks %d", version, Protocol),
		Mend:   "upgrade the older of the two",
	}
}

// ValidName reports whether name may name a managed certificate.
func ValidName(name string) bool {
	if name == "" || len(name) > MaxNameLen || !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f {
			return false
		}
	}
	return true
}

func validID(id string) bool {
	if len(id) < 8 || len(id) > 64 {
		return false
	}
	for _, r := range id {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
			return false
		}
	}
	return true
}
