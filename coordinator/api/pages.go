package api

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// keptPages is how many octets of answers are kept ready, unless somebody says
// otherwise. A single one has an eighth of it at most.
const keptPages = 32 << 20

// pages keep the answers that were asked for last, and let those who ask for one that
// is being made wait for it. Answers of before a change are not asked for any more, and
// go when there is need of room.
type pages struct {
	room int64 // octets

	mu     sync.Mutex
	taken  int64
	kept   map[edition]*list.Element // of *keptPage
	newest list.List
	making map[edition]chan struct{} // closed when it ends
}

type keptPage struct {
	edition edition
	page    *page
}

// keptCost is what a page takes of the room.
func keptCost(p *page) int64 { return 2*int64(len(p.body)) + 256 } // compressed too

// find is the page of an edition. If there is none the caller is the one to make it,
// and says when it is done, whether it has put one or not.
func (k *pages) find(ctx context.Context, e edition, now time.Time) (page *page, done func()) {
	if k.room <= 0 {
		return nil, func() {}
	}
	for waited := false; ; waited = true {
		k.mu.Lock()
		if element, ok := k.kept[e]; ok {
			kept := element.Value.(*keptPage) // the list holds nothing else
			if goodAt(kept.page.until, now) {
				k.newest.MoveToFront(element)
				k.mu.Unlock()
				return kept.page, nil
			}
			k.drop(element)
		}
		ended, busy := k.making[e]
		if !busy || waited {
			// Who has waited in vain makes it for itself: the other has failed, or its
			// answer is not one to keep.
			done = func() {}
			if !busy {
				done = k.begin(e)
			}
			k.mu.Unlock()
			return nil, done
		}
		k.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
			return nil, func() {}
		}
	}
}

// begin notes that a page is being made; k.mu is held.
func (k *pages) begin(e edition) (done func()) {
	ended := make(chan struct{})
	if k.making == nil {
		k.making = map[edition]chan struct{}{}
	}
	k.making[e] = ended
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.making, e)
		close(ended)
	}
}

// put keeps a page, if it is not too large.
func (k *pages) put(e edition, p *page) {
	cost := keptCost(p)
	if cost > k.room/8 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept == nil {
		k.kept = map[edition]*list.Element{}
	}
	if before, ok := k.kept[e]; ok {
		k.drop(before)
	}
	k.kept[e] = k.newest.PushFront(&keptPage{edition: e, page: p})
	for k.taken += cost; k.taken > k.room; {
		k.drop(k.newest.Back())
	}
}

// drop forgets a page; k.mu is held.
func (k *pages) drop(element *list.Element) {
	kept := k.newest.Remove(element).(*keptPage) // the list holds nothing else
	delete(k.kept, kept.edition)
	k.taken -= keptCost(kept.page)
}
