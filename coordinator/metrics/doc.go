// Package metrics tells Prometheus how the coordinator and its fleet stand.
//
// An Exporter is safe for concurrent use. See DESIGN.md.
package metrics
