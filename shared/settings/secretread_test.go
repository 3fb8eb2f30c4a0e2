package settings_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/certctl/certctl/shared/settings"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A secret that came from a file is read anew whenever somebody wants it, and judged
// as when it was loaded.
func TestSecretsOfFilesAreReadAnew(t *testing.T) {
	path := write(t, "server: {url: u, token_file: token}\n")
	file := filepath.Join(filepath.Dir(path), "token")
	put := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	put("first\n")
	var d daemon
	_, err := settings.Load(&d, settings.Options{File: path})
	require.NoError(t, err)
	read := func() string {
		t.Helper()
		text, err := d.Server.Token.Read()
		require.NoError(t, err)
		return text
	}
	assert.Equal(t, "first", read())
	put("second\r\n")
	assert.Equal(t, "second", read())
	assert.Equal(t, "first", d.Server.Token.Reveal(), "what was loaded stays as it is")

	for text, says := range map[string]string{"": "is empty", "\n": "is empty", "\xff": "is not UTF-8"} {
		put(text)
		_, err := d.Server.Token.Read()
		require.ErrorContains(t, err, says)
		assert.ErrorContains(t, err, file)
	}
	require.NoError(t, os.Remove(file))
	_, err = d.Server.Token.Read()
	require.ErrorContains(t, err, "cannot read the secret file")

	text, err := settings.NewSecret("given").Read()
	require.NoError(t, err)
	assert.Equal(t, "given", text)
	text, err = settings.Secret{}.Read()
	require.NoError(t, err)
	assert.Empty(t, text)
}
