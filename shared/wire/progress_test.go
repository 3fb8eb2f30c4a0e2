package wire

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestProgress(t *testing.T) {
	said := OrderResult{State: OrderPending, Stage: OrderNeedsPerson, Detail: "two\r\nlines", Mend: strings.Repeat("ä", MaxProgressText)}
	p := said.Parsed()
	assert.Equal(t, OrderNeedsPerson, p.Stage)
	assert.Equal(t, "two  lines", p.Detail)
	assert.Equal(t, strings.Repeat("ä", MaxProgressText/2-2)+"…", p.Mend)
	for name, change := range map[string]func(*OrderResult){
		"an agent of before": func(r *OrderResult) { r.Stage = "" },
		"no word":            func(r *OrderResult) { r.Stage = "a b" },
		"too long":           func(r *OrderResult) { r.Stage = OrderStage(strings.Repeat("a", 33)) },
		"not pending":        func(r *OrderResult) { r.State = OrderIssued },
	} {
		other := said
		change(&other)
		assert.Zero(t, other.Parsed(), name)
	}
	said.Stage = "a_later_word"
	assert.Equal(t, OrderStage("a_later_word"), said.Parsed().Stage)
	assert.False(t, said.Parsed().Person())

	assert.True(t, OrderProgress{Stage: OrderNeedsPerson}.Person())
	assert.True(t, OrderProgress{Stage: OrderUnknown, Mend: "look it up"}.Person())
	assert.False(t, OrderProgress{Stage: OrderUnknown}.Person(), "it is being searched for")
	for stage, want := range map[OrderStage]bool{"": false, OrderRequested: false, OrderPlacing: false, OrderAtAuthority: true, OrderUnknown: true, "a_later_word": true} {
		assert.Equal(t, want, OrderProgress{Stage: stage}.AtAuthority(), stage)
	}
}

func FuzzOrderProgress(f *testing.F) {
	f.Add("pending", "needs_person", "waits for approval", "approve it")
	f.Add("pending", "x\x00", "\xff\xfe", strings.Repeat("\u2028", 1000))
	f.Fuzz(func(t *testing.T, state, stage, detail, mend string) {
		p := (&OrderResult{State: OrderState(state), Stage: OrderStage(stage), Detail: detail, Mend: mend}).Parsed()
		if p.Stage == "" && p != (OrderProgress{}) {
			t.Fatalf("%+v says something of no stage", p)
		}
		for _, text := range []string{string(p.Stage), p.Detail, p.Mend} {
			if len(text) > MaxProgressText || !utf8.ValidString(text) || strings.ContainsAny(text, "\n\r\x00\x1b") {
				t.Fatalf("%q is not fit to be shown", text)
			}
		}
	})
}
