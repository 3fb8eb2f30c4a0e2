package jointoken_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/jointoken"
)

var root = &x509.Certificate{Raw: []byte("a root")}

func TestRoundTrip(t *testing.T) {
	token, err := jointoken.New(root, "https://c1.example.com:8443", "https://[2001:db8::1]:8443/")
	require.NoError(t, err)
	parsed, err := jointoken.Parse("\n" + token.Reveal() + " \n")
	require.NoError(t, err)
	assert.Equal(t, token, parsed)
	assert.Equal(t, token.SecretHash(), parsed.SecretHash())

	other, err := jointoken.New(root, "https://c1.example.com:8443")
	require.NoError(t, err)
	assert.NotEqual(t, token.ID, other.ID)
	assert.NotEqual(t, token.Secret, other.Secret)
}

func TestURLsAreChecked(t *testing.T) {
	for _, urls := range [][]string{
		{}, {"http://c1.example.com"}, {"https://"}, {"https://c1/path"}, {"https://user@c1"}, {"https://c1?x=y"}, {"https://c1#x"}, {"https://c 1"},
		{"https://c1/" + strings.Repeat("/", jointoken.MaxURL)}, strings.Fields(strings.Repeat("https://c1 ", jointoken.MaxURLs+1)),
	} {
		_, err := jointoken.New(root, urls...)
		assert.Error(t, err, "%v", urls)
	}
}

// A text that was altered anywhere is refused, or names another token than before.
func TestAlteredTexts(t *testing.T) {
	token, err := jointoken.New(root, "https://c1.example.com:8443")
	require.NoError(t, err)
	text := token.Reveal()
	for i := range text {
		for _, changed := range []string{text[:i] + text[i+1:], text[:i], text[:i] + "\n" + text[i:], text[:i] + "." + text[i+1:]} {
			if strings.TrimSpace(changed) == text {
				continue
			}
			parsed, err := jointoken.Parse(changed)
			if err == nil {
				assert.NotEqual(t, token, parsed)
				continue
			}
			require.ErrorIs(t, err, jointoken.ErrMalformed)
			assert.NotContains(t, err.Error(), text[20:40], "the error repeats the secret")
		}
	}
}

func TestItHidesItself(t *testing.T) {
	token, err := jointoken.New(root, "https://c1.example.com:8443")
	require.NoError(t, err)
	secret := strings.Split(token.Reveal(), ".")[2]
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("token", "token", token)
	for _, text := range []string{fmt.Sprint(token), fmt.Sprintf("%+v %#v", token, token), log.String()} {
		assert.NotContains(t, text, secret)
		assert.Contains(t, text, token.ID)
	}
	_, err = json.Marshal(token)
	assert.Error(t, err)
}

func FuzzParse(f *testing.F) {
	token, err := jointoken.New(root, "https://c1.example.com:8443", "https://c2.example.com:8443")
	require.NoError(f, err)
	f.Add(token.Reveal())
	f.Add("ctj1.....")
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := jointoken.Parse(text)
		if err != nil {
			return
		}
		if strings.TrimSpace(text) != parsed.Reveal() {
			t.Fatalf("%q is read as %q", text, parsed.Reveal())
		}
	})
}
