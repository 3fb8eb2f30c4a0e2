package config

import "strings"

const defaultFile = `C:\ProgramData\certctl-agent\agent.yaml`

// foldCase is what all spellings of a path have in common.
func foldCase(path string) string { return strings.ToLower(path) }
