package backoff

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

var now = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

func TestRetryAfter(t *testing.T) {
	tests := []struct {
		value string
		want  time.Duration
		valid bool
	}{
		{"0", 0, true},
		{"120", 2 * time.Minute, true},
		{"\t120 ", 2 * time.Minute, true},
		{"000000000000000000000000000120", 2 * time.Minute, true},
		{"86400", MaxRetryAfter, true},
		{"86401", MaxRetryAfter, true},
		{"18446744073709551615", MaxRetryAfter, true},
		{"99999999999999999999999999", MaxRetryAfter, true},
		{"Sun, 01 Mar 2026 12:30:00 GMT", 30 * time.Minute, true},
		{"Sunday, 01-Mar-26 12:30:00 GMT", 30 * time.Minute, true},
		{"Sun Mar  1 12:30:00 2026", 30 * time.Minute, true},
		{"Sun, 01 Mar 2026 11:00:00 GMT", 0, true},
		{"Wed, 01 Jan 2036 00:00:00 GMT", MaxRetryAfter, true},
		{"Sun, 31 Dec 9999 23:59:59 GMT", MaxRetryAfter, true},
		{"", 0, false},
		{" ", 0, false},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1.5", 0, false},
		{"1e3", 0, false},
		{"0x10", 0, false},
		{"1_000", 0, false},
		{"١٢", 0, false},
		{"soon", 0, false},
		{"2026-03-01T12:30:00Z", 0, false},
		{"120, 240", 0, false},
	}
	for _, test := range tests {
		t.Run(test.value, func(t *testing.T) {
			got, valid := RetryAfter(http.Header{"Retry-After": {test.value}}, now)
			assert.Equal(t, test.valid, valid)
			assert.Equal(t, test.want, got)
		})
	}
	_, valid := RetryAfter(nil, now)
	assert.False(t, valid)
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"0", "120", "-1", "99999999999999999999", "Sun, 01 Mar 2026 12:30:00 GMT", "Sun Mar  1 12:30:00 2026", "soon"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got, valid := RetryAfter(http.Header{"Retry-After": {value}}, now)
		if got < 0 || got > MaxRetryAfter {
			t.Fatalf("%q gave %v, outside 0..%v", value, got, MaxRetryAfter)
		}
		if !valid && got != 0 {
			t.Fatalf("%q is not valid but gave %v", value, got)
		}
		if seconds, err := strconv.Atoi(value); err == nil && value[0] != '-' && value[0] != '+' {
			if want := min(seconds, 86400); !valid || got != time.Duration(want)*time.Second {
				t.Fatalf("%q gave %v, %v", value, got, valid)
			}
		}
	})
}
