// Package ciguards proves that each guard in this directory fails on an
// offender and passes on a clean tree. The guards themselves are the scripts
// guard-*.sh, run together by run.sh.
package ciguards
