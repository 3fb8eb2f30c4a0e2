// Package control is how a person on the host talks to the running agent: a
// small HTTP interface over a Unix socket or a Windows named pipe, its client,
// and the text that "status" prints.
//
// Who may open the socket may do everything here. That is decided by the file
// system (mode and group) or by the pipe's access rules, never by a password;
// nothing listens on the network.
//
// A Server and a Client are safe for concurrent use.
package control
