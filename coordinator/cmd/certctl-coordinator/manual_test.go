package main

import (
	"testing"

	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/internal/manpage"
	"github.com/certctl/certctl/internal/manpage/manpagetest"
	"github.com/certctl/certctl/shared/cli"
)

// Every command has what its help and its manual page need, and the pages can be read.
func TestManual(t *testing.T) {
	manpagetest.Check(t, func() manpage.Manual {
		return manpage.Manual{
			Root: newRoot(), Section: 8,
			Environment: []manpage.Entry{
				{Name: cli.FileVariable, Text: "The configuration file, if --config names none."},
				{Name: "CERTCTL_...", Text: "Each setting has a variable, which goes before the file. \"certctl-coordinator check-config --explain\" shows what each setting is, and where from."},
			},
			Files:   []manpage.Entry{{Name: config.DefaultFile, Text: "The configuration; \"certctl-coordinator check-config --example\" prints one with every setting."}},
			SeeAlso: []string{"certctl(1)", "certctl-agent(8)"},
		}
	})
}
