package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Status stands beside start and stop, and is the one below service too.
func TestStatusIsAVerb(t *testing.T) {
	for _, line := range [][]string{{"status"}, {"service", "status"}} {
		var out, errs bytes.Buffer
		require.Zero(t, execute(append(line, "--help"), &out, &errs), errs.String())
		assert.Contains(t, out.String(), "Exit status: 0 the service runs, 1 it does not.")
		assert.Contains(t, out.String(), "  certctl-coordinator "+strings.Join(line, " ")+"\n")
		errs.Reset()
		assert.Equal(t, 1, execute(append(line, "--output", "xml"), &out, &errs))
		assert.Equal(t, "certctl-coordinator: flag --output \"xml\": expected table, json, yaml or csv\n", errs.String())
	}
}

func TestVersionTakesTheWordsOfTheOtherVerbs(t *testing.T) {
	said := make(map[string]string)
	for _, output := range []string{"table", "text", "json"} {
		var out, errs bytes.Buffer
		require.Zero(t, execute([]string{"version", "--output", output}, &out, &errs), errs.String())
		said[output] = out.String()
	}
	assert.Equal(t, said["table"], said["text"])
	assert.NotEqual(t, said["table"], said["json"])
}
