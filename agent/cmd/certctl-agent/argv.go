package main

import (
	"time"

	"github.com/certctl/certctl/agent/deploy/command"
)

// argv is a configured command, nil when there is none.
func argv(words []string, timeout time.Duration) *command.Config {
	if len(words) == 0 {
		return nil
	}
	return &command.Config{Argv: words, Timeout: timeout}
}
