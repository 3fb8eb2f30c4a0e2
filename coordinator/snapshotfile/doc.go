// Package snapshotfile is the format of the files that "certctl snapshot save"
// and the scheduled backups write: one state of the coordinator, with what a
// person has to know before restoring it.
//
// A file is the magic, a version, the header as JSON, the content as gzip in
// blocks, an end that counts the blocks' octets, and the SHA-256 of everything
// before it. It is written and read as a stream; what was read is to be believed
// only when the reader has come to its end.
//
// The content is opaque here. It holds private keys only sealed, and secrets of
// tokens only as hashes; it does hold the inventory of the fleet.
package snapshotfile
