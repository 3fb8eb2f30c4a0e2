// Package upgrade tests that this version goes on with what earlier ones have
// stored. Its testdata holds data directories of coordinators, one pair for each
// version since the first one that people may have in use.
package upgrade
