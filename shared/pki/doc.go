// Package pki holds what certctl knows about certificates: the names that they carry, the keys behind them, the requests
// for them (PKCS #10, RFC 2986), the chains that come back (RFC 5280), and which names an enrolment allows.
//
// Everything that parses here takes bytes from outside: each parser has a size limit, refuses what it does not
// understand instead of skipping it, and returns one error that names the offending part and how to mend it.
//
// The package has no state. Its values are plain data; a value that nobody changes may be read from many goroutines.
// No error and no String method ever contains private key material.
package pki
