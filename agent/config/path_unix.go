//go:build !windows

package config

const defaultFile = "/etc/certctl/agent.yaml"

// foldCase is what all spellings of a path have in common.
func foldCase(path string) string { return path }
