//go:build unix && race

package crashtest

const underRace = true
