// Package postgres keeps the history in a PostgreSQL database: the leader of a
// cluster exports the facts of its journal there, each exactly once, and reads them
// back.
//
// How far the export has come stands in the database itself, in a row that is
// changed in the transactions that store facts. While the database is away, facts
// wait in the journal, and nothing else waits.
//
// DESIGN.md has the promises and the reasons.
package postgres
