// Package assignment decides what this host makes of the certificates that the
// centre defines for it.
//
// The rules are the host's own: a certificate of its own configuration wins over
// an assignment of the same name; the names have to be within the patterns of its
// enrolment, whichever issuer is asked; the issuer has to exist here; and files
// and commands have to be allowed by the section assignments of its
// configuration. What is not allowed is refused as a whole, with the line that
// would allow it. docs/operator/assignments.md is for operators.
package assignment
