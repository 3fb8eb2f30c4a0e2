package metrics

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/certctl/certctl/agent/store"
	"github.com/certctl/certctl/shared/wire"
)

// certificate is what is shown of a managed certificate. It never changes.
type certificate struct {
	name, issuer                 string
	state                        wire.State
	notAfter, renewAt, safeUntil time.Time
	attention                    bool

	hash wire.Digest // of its row
}

// inventory follows the store's: it asks for what has changed since it asked
// last.
type inventory struct {
	mu       sync.Mutex // held while the store is asked
	revision uint64
	digest   wire.Digest
	rows     map[string]*certificate
	list     []*certificate // by name; replaced when rows change
}

// pageRows is how many rows one read transaction of the store returns.
const pageRows = 500

// changes is Store.Changes.
type changes func(after uint64, limit int) (store.Changes, error)

// follow returns all certificates by name. The list is not changed afterwards.
func (i *inventory) follow(ask changes) ([]*certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	whole, changed, err := i.catchUp(ask)
	if err == nil && !whole {
		// A removal that was acknowledged and forgotten before it was seen here.
		i.revision, i.digest, i.rows, changed = 0, wire.Digest{}, nil, true
		_, _, err = i.catchUp(ask)
	}
	if err != nil {
		i.revision, i.digest, i.rows, i.list = 0, wire.Digest{}, nil, nil
		return nil, err
	}
	if changed {
		i.list = make([]*certificate, 0, len(i.rows))
		for _, c := range i.rows {
			i.list = append(i.list, c)
		}
		slices.SortFunc(i.list, func(a, b *certificate) int { return cmp.Compare(a.name, b.name) })
	}
	return i.list, nil
}

// catchUp takes over what has changed. whole reports whether the digest agrees
// with the store's. Rows that change while pages are read come again with a
// later revision, so that a last page is of one moment with all before it.
func (i *inventory) catchUp(ask changes) (whole, changed bool, err error) {
	if i.rows == nil {
		i.rows = make(map[string]*certificate)
	}
	for {
		page, err := ask(i.revision, pageRows)
		if err != nil {
			return false, changed, err
		}
		for _, row := range page.Rows {
			c, err := read(row)
			if err != nil {
				return false, changed, err
			}
			i.drop(row.Name)
			i.rows[row.Name] = c
			i.digest.Toggle(c.hash)
		}
		for _, removal := range page.Removed {
			if c := i.rows[removal.Name]; c != nil {
				i.drop(removal.Name)
			}
		}
		changed = changed || len(page.Rows)+len(page.Removed) > 0
		i.revision = page.Upto
		if page.Upto >= page.Head {
			return i.digest == page.Digest, changed, nil
		}
	}
}

func (i *inventory) drop(name string) {
	if c := i.rows[name]; c != nil {
		i.digest.Toggle(c.hash)
		delete(i.rows, name)
	}
}

// read reads a row. Texts are shared by nothing, so that a row does not keep a
// page in memory.
func read(row wire.Row) (*certificate, error) {
	var s struct {
		State          wire.State `json:"state"`
		Issuer         string     `json:"issuer"`
		IssuedBy       string     `json:"issued_by"`
		NotAfter       time.Time  `json:"not_after"`
		RenewAt        time.Time  `json:"renew_at"`
		SafeUntil      time.Time  `json:"safe_until"`
		NeedsAttention string     `json:"needs_attention"`
	}
	if err := json.Unmarshal(row.Data, &s); err != nil {
		return nil, fmt.Errorf("the summary of the certificate %q cannot be read: %w", row.Name, err)
	}
	return &certificate{
		name: row.Name, issuer: cmp.Or(s.IssuedBy, s.Issuer), state: s.State,
		notAfter: s.NotAfter, renewAt: s.RenewAt, safeUntil: s.SafeUntil, attention: s.NeedsAttention != "",
		hash: row.Hash(),
	}, nil
}
