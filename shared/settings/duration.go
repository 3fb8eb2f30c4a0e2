package settings

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

var errDuration = errors.New("not a duration such as 90s, 12h or 30d")

// ParseDuration reads a duration in the text form of time.ParseDuration, optionally led by a whole number of days of
// exactly 24 hours: "90s", "12h", "30d", "1d12h", "-1d".
func ParseDuration(text string) (time.Duration, error) {
	head, rest, hasDays := strings.Cut(text, "d")
	if !hasDays {
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, errDuration
		}
		return d, nil
	}
	digits, negative := strings.CutPrefix(head, "-")
	days, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || days > uint64(math.MaxInt64/int64(day)) {
		return 0, errDuration
	}
	total := time.Duration(days) * day
	if rest != "" {
		// The sign belongs to the whole text, so the part after the days has none of its own.
		if rest[0] == '-' || rest[0] == '+' {
			return 0, errDuration
		}
		more, err := time.ParseDuration(rest)
		if err != nil || more > math.MaxInt64-total {
			return 0, errDuration
		}
		total += more
	}
	if negative {
		total = -total
	}
	return total, nil
}

// FormatDuration writes d as ParseDuration reads it, with whole days as days and without zero parts: "30d", "1d12h",
// "90s" becomes "1m30s".
func FormatDuration(d time.Duration) string {
	if d > -day && d < day {
		return trimZeroParts(d.String())
	}
	days, rest := d/day, d%day
	text := strconv.FormatInt(int64(days), 10) + "d"
	if rest != 0 {
		text += trimZeroParts(rest.Abs().String())
	}
	return text
}

// trimZeroParts turns 12h0m0s into 12h and 5m0s into 5m.
func trimZeroParts(text string) string {
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
