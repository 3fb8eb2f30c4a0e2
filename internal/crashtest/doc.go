// Package crashtest holds the agent, put together from its real parts, against
// crashes and failing disks: its store, its key directories, its engine and its
// sync, deployments to files with a check, a reload and a look at the wire, and
// a program that serves what it read. Only the authority and the coordinator are
// models in memory.
//
// A scenario runs once, in virtual time, and at every durable step of it (package
// durable), before and after, everything that survives a crash is copied: the
// state directory, the deployed files, what the programs have loaded, and what
// the authority and the coordinator remember. A new agent is started on each
// copy, and has to come to rest with what was promised. The package knows every
// step of the module, and fails when one of them was never met.
//
// In some scenarios the power fails instead: left is what was really synced, file
// by file and directory by directory, whatever the steps are called; and in every
// scenario a step that promises to be on the disk is held to it.
package crashtest
