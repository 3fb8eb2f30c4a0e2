// Package cli is certctl, the operator's command line: a client of the
// coordinator's API.
package cli
