package cli_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/shared/cli"
)

func TestDurationsAreTextInEveryFormat(t *testing.T) {
	for format, want := range map[string]string{"json": `"retry_in":"118.3ms","count":3,"err":"no"}`, "text": "retry_in=118.3ms count=3 err=no"} {
		var out bytes.Buffer
		log, _, err := cli.Logger(&out, "info", format)
		require.NoError(t, err)
		log.Info("later", "retry_in", 118300*time.Microsecond, "count", 3, "err", errors.New("no"))
		assert.Contains(t, out.String(), want)
	}
}
