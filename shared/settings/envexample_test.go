package settings_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/settings"
)

// Values that have a meaning for systemd are quoted as it reads them back, and
// secrets are shown by neither of their variables.
func TestEnvExample(t *testing.T) {
	text, err := settings.EnvExample(&struct {
		Plain string          `yaml:"plain" env:"CERTCTL_T_NAME" default:"a=b/c,d" doc:"The plain one."`
		Odd   string          `yaml:"odd" env:"CERTCTL_T_PROXY" default:"a \"b\" \\ $c" doc:"The odd one."`
		List  []string        `yaml:"list" env:"CERTCTL_T_TAGS" max:"3" example:"x,y" doc:"The list."`
		Key   settings.Secret `yaml:"key" env:"CERTCTL_T_TOKEN" doc:"The key."`
		File  string          `yaml:"file" default:"" doc:"Of the file alone."`
	}{}, "First.\n\nSecond.")
	require.NoError(t, err)
	assert.Equal(t, strings.TrimPrefix(`
## First.
##
## Second.

## The plain one.
## Text. In the configuration file: plain.
#CERTCTL_T_NAME=a=b/c,d

## The odd one.
## Text. In the configuration file: odd.
#CERTCTL_T_PROXY="a \"b\" \\ \$c"

## The list.
## List of text, parted by commas, at most 3 elements. Shown: an example. In the configuration file:
## list.
#CERTCTL_T_TAGS=x,y

## The key.
## Secret. Either it or, in CERTCTL_T_TOKEN_FILE, the path of a file that holds it. In the
## configuration file: key.
#CERTCTL_T_TOKEN=
#CERTCTL_T_TOKEN_FILE=
`, "\n"), string(text))
}
