package settings_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/certctl/certctl/shared/settings"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSecretNeverPrints(t *testing.T) {
	type holder struct {
		Token settings.Secret
		Deep  map[string]*settings.Secret
	}
	secret := settings.NewSecret("hunter2")
	value := holder{Token: secret, Deep: map[string]*settings.Secret{"k": &secret}}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s"} {
		fmt.Fprintf(&out, verb+"\n", value)
		fmt.Fprintf(&out, verb+"\n", secret)
		fmt.Fprintf(&out, verb+"\n", &secret)
	}
	fmt.Fprintln(&out, secret.String(), secret.GoString(), fmt.Errorf("wrapped: %v", secret))
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		slog.New(handler).Info("secret", "value", secret, "pointer", &secret, "holder", value)
	}
	encoded, err := json.Marshal(value)
	require.NoError(t, err)
	out.Write(encoded)
	text, err := secret.MarshalText()
	require.NoError(t, err)
	out.Write(text)

	printed := out.String()
	assert.NotContains(t, printed, "hunter2")
	assert.NotContains(t, strings.ToLower(printed), "68756e74", "nor in hexadecimal")
	assert.JSONEq(t, `{"Token":"[redacted]","Deep":{"k":"[redacted]"}}`, string(encoded))
	assert.Equal(t, "hunter2", secret.Reveal())
	assert.True(t, secret.IsSet())
	assert.False(t, settings.Secret{}.IsSet())
}
