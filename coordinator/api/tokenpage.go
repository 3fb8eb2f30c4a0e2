package api

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"time"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/health"
)

// tokenList is a page of tokens of one kind.
type tokenList[T any] struct {
	Body resource.Page[T]
}

// listOf is the page of the tokens that are shown in a state; "" is any. about tells
// of a shown token what the list goes by.
func listOf[S, T any](stored []S, show func(S, *health.Clock) T, about func(T) (tokenPlace, resource.TokenState), state string, in Paging, now *health.Clock) (*tokenList[T], error) {
	var all []T
	for _, token := range stored {
		shown := show(token, now)
		if _, is := about(shown); state == "" || state == string(is) {
			all = append(all, shown)
		}
	}
	page, problem := pageOf(all, in, func(shown T) tokenPlace {
		place, _ := about(shown)
		return place
	})
	if problem != nil {
		return nil, problem
	}
	return &tokenList[T]{Body: page}, nil
}

// tokenPlace is where a token stands in a list: newest first, then by id. It
// never changes, so that pages neither repeat nor miss a token.
type tokenPlace struct {
	createdAt time.Time
	id        string
}

func (p tokenPlace) compare(other tokenPlace) int {
	return cmp.Or(other.createdAt.Compare(p.createdAt), cmp.Compare(p.id, other.id))
}

func (p tokenPlace) cursor() string {
	nanoseconds := binary.BigEndian.AppendUint64(nil, uint64(p.createdAt.UnixNano())) //nolint:gosec // a bit pattern, not a number
	return base64.RawURLEncoding.EncodeToString(append(nanoseconds, p.id...))
}

func parseTokenPlace(cursor string) (tokenPlace, bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) <= 8 || len(raw) > 8+64 {
		return tokenPlace{}, false
	}
	nanoseconds := int64(binary.BigEndian.Uint64(raw)) //nolint:gosec // the bit pattern from above
	place := tokenPlace{createdAt: time.Unix(0, nanoseconds).UTC(), id: string(raw[8:])}
	return place, place.cursor() == cursor // the decoder passes over line breaks
}

// pageOf cuts a page out of a list of tokens. There are never many: the list is
// sorted whole.
func pageOf[T any](all []T, in Paging, place func(T) tokenPlace) (resource.Page[T], *Problem) {
	slices.SortFunc(all, func(a, b T) int { return place(a).compare(place(b)) })
	page := resource.Page[T]{Items: []T{}}
	if in.Cursor != "" {
		after, ok := parseTokenPlace(in.Cursor)
		if !ok {
			return page, badCursor()
		}
		all = slices.DeleteFunc(all, func(t T) bool { return place(t).compare(after) <= 0 })
	}
	page.Items = append(page.Items, all[:min(in.Limit, len(all))]...)
	if len(all) > in.Limit {
		page.NextCursor = place(page.Items[in.Limit-1]).cursor()
	}
	return page, nil
}
