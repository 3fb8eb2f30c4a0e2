// Package issuers makes of the settings what orders are placed with: for each issuer
// a connector to its account, what may be asked of it, and how long at the quick pace.
//
// Credentials stay where they are, and are read when they are needed: from the
// setting, or from its file as that is by then.
package issuers
