// Package cli holds what the command lines of the daemons have in common: how
// they find and read their settings, how they log, and the verbs check-config
// and version.
package cli
