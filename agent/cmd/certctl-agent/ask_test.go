package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A verb without its argument says what it wants, and where to find it.
func TestRenewWantsOneName(t *testing.T) {
	var out, errs bytes.Buffer
	assert.Equal(t, 1, execute([]string{"renew", "--all", "www"}, &out, &errs))
	assert.Contains(t, errs.String(), "either the name of one certificate or --all")
	for _, args := range [][]string{{"renew"}, {"renew", "www", "mail"}} {
		var out, errs bytes.Buffer
		assert.Equal(t, 1, execute(args, &out, &errs))
		assert.Empty(t, out.String())
		assert.Contains(t, errs.String(), "give the name of one certificate")
		assert.Contains(t, errs.String(), "certctl-agent list")
	}
}
