// Package metrics tells Prometheus how the host stands: on an address of its
// own, or as a file for the textfile collector of node_exporter.
//
// A Reporter is safe for concurrent use. See DESIGN.md.
package metrics
