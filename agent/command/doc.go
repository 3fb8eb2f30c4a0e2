// Package command carries out what the centre asks of this host: to replace a
// certificate with a new key, or to revoke it and replace it.
//
// A command is bound to one certificate, by its serial number, in the same
// transaction that reads which one is in service. From then on everything
// follows from the records: the command is done once another one is in service,
// so that no crash makes it be carried out twice. See DESIGN.md.
package command
