package cli

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certctl/certctl/internal/manpage"
	"github.com/certctl/certctl/internal/manpage/manpagetest"
)

// Every command has what its help and its manual page need, and the pages can be read.
func TestManual(t *testing.T) {
	var environment []manpage.Entry
	for _, v := range variables {
		environment = append(environment, manpage.Entry{Name: v.name, Text: v.meaning})
	}
	manual := func() manpage.Manual {
		return manpage.Manual{
			Root: newProgram().root(), Section: 1, Environment: environment,
			Files: []manpage.Entry{{
				Name: "~/.config/certctl/config.yaml",
				Text: "The contexts, with their tokens: what \"certctl login\" has stored. It is in $XDG_CONFIG_HOME if that is set.",
			}},
			SeeAlso: []string{"certctl-agent(8)", "certctl-coordinator(8)"},
		}
	}
	manpagetest.Check(t, manual)
	page := manual().Pages()["certctl-agents-list.1"]
	assert.Contains(t, page, "certctl\\-agents\\-list \\- List agents\n")
	assert.Contains(t, page, ".TP\n\\fB\\-\\-limit\\fR \\fInumber\\fR\nshow at most this many (default 200)\n")
	assert.Contains(t, page, "\\fBcertctl\\-agents\\fR(1)")
	assert.Contains(t, manual().Pages()["certctl.1"], "\\fBCERTCTL_TOKEN_FILE\\fR\n")
}
