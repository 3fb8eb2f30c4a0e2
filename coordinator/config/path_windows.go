package config

const defaultFile = `C:\ProgramData\certctl-coordinator\coordinator.yaml`
