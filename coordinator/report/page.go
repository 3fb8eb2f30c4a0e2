package report

import (
	"cmp"
	"container/heap"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// ErrCursor says that a cursor is none of the report.
var ErrCursor = errors.New("the cursor is not one of this report; begin again without a cursor")

// place is where a host stands in the order by risk. It follows from the host alone, so
// that a page goes on where the one before it ended, whatever happened meanwhile.
type place struct {
	rank int
	at   int64
	id   string
}

func (h *Host) place() place {
	at := int64(math.MaxInt64)
	if !h.RiskAt.IsZero() {
		at = h.RiskAt.UnixNano()
	}
	return place{rank: slices.Index(Risks, h.Risk), at: at, id: h.Agent.ID}
}

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.rank, o.rank), cmp.Compare(p.at, o.at), cmp.Compare(p.id, o.id))
}

// cursorForm begins every cursor, so that one of another list is seen to be that.
const cursorForm = "risk\x01"

const cursorFixed = len(cursorForm) + 1 + 8

// cursor names a place for clients.
func (p place) cursor() string {
	raw := append([]byte(cursorForm), byte(p.rank))
	raw = binary.BigEndian.AppendUint64(raw, uint64(p.at)) //nolint:gosec // a bit pattern, not a number
	return base64.RawURLEncoding.EncodeToString(append(raw, p.id...))
}

func parseCursor(cursor string) (place, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) <= cursorFixed || string(raw[:len(cursorForm)]) != cursorForm || int(raw[len(cursorForm)]) >= len(Risks) {
		return place{}, ErrCursor
	}
	at := int64(binary.BigEndian.Uint64(raw[len(cursorForm)+1:])) //nolint:gosec // the bit pattern of cursor
	return place{rank: int(raw[len(cursorForm)]), at: at, id: string(raw[cursorFixed:])}, nil
}

// placed is a host with its place.
type placed struct {
	host  *Host
	place place
}

// worst gathers the hosts that come first after a place, as many as there is room
// for. It is a heap whose top is the last of them.
type worst struct {
	room  int // 0 is for all
	after *place
	hosts []placed
	more  bool // others come after them
}

func (w *worst) Len() int           { return len(w.hosts) }
func (w *worst) Less(i, j int) bool { return w.hosts[i].place.compare(w.hosts[j].place) > 0 }
func (w *worst) Swap(i, j int)      { w.hosts[i], w.hosts[j] = w.hosts[j], w.hosts[i] }
func (w *worst) Push(x any)         { w.hosts = append(w.hosts, x.(placed)) } // of add

// Pop takes away the last one of the slice, as package heap wants it.
func (w *worst) Pop() any {
	last := w.hosts[len(w.hosts)-1]
	w.hosts = w.hosts[:len(w.hosts)-1]
	return last
}

// add takes in a host if it is one of those. The caller may use h again afterwards.
func (w *worst) add(h *Host) {
	at := h.place()
	if w.after != nil && at.compare(*w.after) <= 0 {
		return
	}
	if w.room > 0 && len(w.hosts) == w.room {
		w.more = true
		if at.compare(w.hosts[0].place) >= 0 {
			return
		}
		kept := *h
		w.hosts[0] = placed{&kept, at}
		heap.Fix(w, 0)
		return
	}
	kept := *h
	if w.room == 0 {
		w.hosts = append(w.hosts, placed{&kept, at})
		return
	}
	heap.Push(w, placed{&kept, at})
}

// page is the hosts in their order, and the cursor of those after them.
func (w *worst) page() (hosts []*Host, next string) {
	slices.SortFunc(w.hosts, func(a, b placed) int { return a.place.compare(b.place) })
	hosts = make([]*Host, 0, len(w.hosts))
	for _, p := range w.hosts {
		hosts = append(hosts, p.host)
	}
	if w.more {
		next = w.hosts[len(w.hosts)-1].place.cursor()
	}
	return hosts, next
}
