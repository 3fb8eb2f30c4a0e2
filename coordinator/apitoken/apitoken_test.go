package apitoken

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTokenRoundTrip(t *testing.T) {
	token := New()
	parsed, err := Parse("\n " + token.Reveal() + "\n")
	require.NoError(t, err)
	assert.Equal(t, token.ID, parsed.ID)
	assert.Equal(t, token.Secret, parsed.Secret)
	assert.True(t, parsed.Matches(token.Hash()))

	other := New()
	assert.NotEqual(t, token.ID, other.ID)
	assert.NotEqual(t, token.Secret, other.Secret)
	assert.False(t, other.Matches(token.Hash()))
}

func TestParseRefuses(t *testing.T) {
	secret := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for name, text := range map[string]string{
		"empty":             "",
		"other kind":        "cte1.abcd." + secret,
		"no secret":         "cta1.abcd",
		"four parts":        "cta1.abcd." + secret + ".x",
		"short id":          "cta1.abc." + secret,
		"long id":           "cta1." + strings.Repeat("a", 41) + "." + secret,
		"upper-case id":     "cta1.ABCD." + secret,
		"short secret":      "cta1.abcd." + secret[:40],
		"long secret":       "cta1.abcd." + secret + "AAAA",
		"padded secret":     "cta1.abcd." + secret + "=",
		"not base64url":     "cta1.abcd." + strings.Repeat("+", 43),
		"stray low bits":    "cta1.abcd." + secret[:42] + "B",
		"newline in secret": "cta1.abcd." + secret[:20] + "\n" + secret[20:],
	} {
		t.Run(name, func(t *testing.T) {
			token, err := Parse(text)
			require.ErrorIs(t, err, ErrMalformed)
			assert.Zero(t, token)
			assert.NotContains(t, err.Error(), secret[:20])
		})
	}
}

func TestTokenHidesItsSecret(t *testing.T) {
	token := New()
	secret := base64.RawURLEncoding.EncodeToString(token.Secret[:])
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("made", "token", token)
	for _, shown := range []string{
		fmt.Sprint(token), fmt.Sprintf("%v %+v %#v %s", token, token, token, token), logged.String(),
	} {
		assert.Contains(t, shown, token.ID)
		assert.NotContains(t, shown, secret)
		assert.NotContains(t, shown, fmt.Sprint(token.Secret))
	}
	_, err := json.Marshal(token)
	require.Error(t, err)
}

func FuzzParse(f *testing.F) {
	f.Add(New().Reveal())
	f.Add("cta1.abcd.")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := Parse(text)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.Equal(t, strings.TrimSpace(text), token.Reveal())
	})
}
