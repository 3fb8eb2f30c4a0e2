//go:build !windows

package config

const defaultFile = "/etc/certctl/agent.yaml"
