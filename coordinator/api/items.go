package api

import (
	"bytes"
	"encoding/json"
	"sync"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/health"
)

// keptItems bounds the certificates that are kept as lists show them: on a large fleet
// something changes all the time, and on a page hardly anything does.
const keptItems = 16_384

// An item is a certificate as lists show it. It does not change.
type item struct {
	given itemGiven
	from  time.Time // when it was made
	until time.Time // the moment from which on it is another one; zero: never

	health resource.Health
	data   []byte // its document; nil: only the health was asked for
}

// fits reports whether it is what would be made at a time. Requests look at the clock
// before they come here, and not in the order in which they come.
func (i *item) fits(given itemGiven, now time.Time) bool {
	return i.given == given && !now.Before(i.from) && (i.until.IsZero() || now.Before(i.until))
}

// itemGiven is what an item follows from besides its row and the time.
type itemGiven struct {
	hostname string
	agent    contact
	revoked  *fleet.Revocation // what the built-in CA knows
}

// items keep those that were asked for last: when half of the room is taken, the ones
// that nobody has asked for since the half before was go. Nil keeps none.
type items struct {
	mu         sync.Mutex
	young, old map[*fleet.Certificate]*item
}

func (k *items) get(row *fleet.Certificate) *item {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if kept, ok := k.young[row]; ok {
		return kept
	}
	kept, ok := k.old[row]
	if ok {
		k.add(row, kept)
	}
	return kept
}

func (k *items) put(row *fleet.Certificate, i *item) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.add(row, i)
}

// add puts an item among the young ones; k.mu is held.
func (k *items) add(row *fleet.Certificate, i *item) {
	if len(k.young) >= keptItems/2 || k.young == nil {
		k.young, k.old = make(map[*fleet.Certificate]*item, len(k.young)), k.young
	}
	k.young[row] = i
}

// item is a row as lists show it, with its document if that is wanted.
func (p *picture) item(row *fleet.Certificate, document bool) (*item, error) {
	given := itemGiven{agent: p.contactOf(row), revoked: health.RevocationOf(p.view, row)}
	if agent, ok := p.view.Agent(row.Agent); ok {
		given.hostname = agent.Host.Hostname
	}
	if kept := p.items.get(row); kept != nil && kept.fits(given, p.Now) && (kept.data != nil || !document) {
		p.Note(kept.until)
		return kept, nil
	}
	alone := *p // with a clock of its own, for the moment of this item
	alone.Clock = health.At(p.Now)
	made := &item{given: given, from: p.Now}
	if document {
		shown := alone.certificate(row)
		var data bytes.Buffer
		if err := encode(&data, shown); err != nil {
			return nil, err
		}
		made.health, made.data = shown.Health, bytes.TrimSuffix(data.Bytes(), []byte("\n"))
	} else {
		made.health, _ = alone.health(row, given.agent)
	}
	made.until = alone.Until
	p.Note(made.until)
	p.items.put(row, made)
	return made, nil
}

// encodePage is a page of items that are encoded already, as [encode] writes one.
func encodePage(items [][]byte, page resource.Page[struct{}]) ([]byte, error) {
	size := 256 + len(page.NextCursor)
	for _, one := range items {
		size += len(one) + 1
	}
	out := append(make([]byte, 0, size), `{"items":[`...)
	for i, one := range items {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, one...)
	}
	page.Items = []struct{}{}
	rest, err := json.Marshal(page)
	if err != nil {
		return nil, err
	}
	return append(append(out, rest[len(`{"items":[`):]...), '\n'), nil
}
