package config

const defaultFile = `C:\ProgramData\certctl-agent\agent.yaml`
