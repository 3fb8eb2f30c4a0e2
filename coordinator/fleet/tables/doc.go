// Package tables keeps records in memory, in order and by several keys each, so
// that a moment of it can be held on to at no cost.
//
// [Tables] never change. A [Txn] begins as a copy that shares everything with
// them, copies what it changes, and becomes the next Tables. So readers need no
// lock, see one moment, and hold up nobody, and whoever writes can throw away
// what it has done. One goroutine uses a Txn that writes; Tables, and a Txn that
// reads, are for any number.
//
// Each index is a B-tree. That of the ids holds the records, and the entries of the
// others name them: who reads along one looks the records up, and a change leaves
// alone the indexes whose keys it does not change. A record's id is stored once
// however many indexes it is in, and equal neighbours share what comes before it:
// millions of records have to fit.
package tables
