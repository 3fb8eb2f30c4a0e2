package sectigo

import "github.com/certctl/certctl/coordinator/connector"

// Sources of rows: the vendor's guide and its description of the API, and clients of
// others that agree.
const (
	fromVendor  = "vendor's guide"
	fromBoth    = "vendor's guide and clients"
	fromClients = "clients"
)

const approveMend = "have an administrator (MRAO or RAO) approve the request in Sectigo Certificate Manager"

// stateTable has every state of a certificate that is documented, in the words of
// now and of before.
var stateTable = connector.NewStates(
	connector.StateRow{Word: "Init", State: connector.Pending, Source: fromVendor},
	connector.StateRow{Word: "Not Enrolled", State: connector.Pending, Source: fromVendor},
	connector.StateRow{Word: "Requested", State: connector.NeedsPerson, Mend: approveMend, Source: fromBoth},
	connector.StateRow{Word: "Awaiting Approval", State: connector.NeedsPerson, Mend: approveMend, Source: fromVendor},
	connector.StateRow{Word: "Approved", State: connector.Pending, Source: fromBoth},
	connector.StateRow{Word: "SA Approved", State: connector.Pending, Source: fromVendor},
	connector.StateRow{Word: "Applied", State: connector.Pending, Source: fromBoth},
	connector.StateRow{Word: "Issued", State: connector.Issued, Source: fromBoth},
	connector.StateRow{Word: "Enrolled - Pending Download", State: connector.Issued, Source: fromVendor},
	connector.StateRow{Word: "Downloaded", State: connector.Issued, Source: fromVendor},
	connector.StateRow{Word: "Declined", State: connector.Rejected, Source: fromBoth},
	connector.StateRow{Word: "Rejected", State: connector.Rejected, Source: fromBoth},
	connector.StateRow{Word: "Invalid", State: connector.Rejected, Source: fromVendor},
	// What was replaced has ended; the number stands for the one that replaced it:
	// see status.
	connector.StateRow{Word: "Replaced", State: connector.Ended, Source: fromBoth},
	connector.StateRow{Word: "Revoked", State: connector.Revoked, Source: fromBoth},
	connector.StateRow{Word: "Expired", State: connector.Ended, Source: fromBoth},
	// Not of this authority: such a one is never an order of ours.
	connector.StateRow{Word: "Unmanaged", State: connector.Ended, Source: fromVendor},
	connector.StateRow{Word: "External", State: connector.Ended, Source: fromVendor},
)

// Codes that mean something to more than the table.
const (
	codeRevokedAlready = "-159"
	codeProcessing     = "-1400"
)

const (
	csrMend    = "see whether the profile takes keys of this kind and these names"
	domainMend = "have the domains validated and delegated to the organization in Sectigo Certificate Manager"
	loginMend  = "check the issuer's login, password and customer URI, and that the login may use the API"
)

// codeTable has every code of failures that is documented for what is asked here.
var codeTable = connector.NewCodes(
	// For a while.
	connector.CodeRow{Code: "-140", Class: connector.ClassRetry, Source: fromVendor},
	connector.CodeRow{Code: "-195", Class: connector.ClassRetry, Source: fromVendor},
	connector.CodeRow{Code: "-3114", Class: connector.ClassRetry, Source: fromVendor},
	connector.CodeRow{Code: "-3115", Class: connector.ClassRetry, Source: fromVendor},
	connector.CodeRow{Code: codeProcessing, Class: connector.ClassRetry, Source: fromClients},
	// Not there yet.
	connector.CodeRow{Code: "-183", Class: connector.ClassNotReady, Source: fromBoth},
	connector.CodeRow{Code: "-103", Class: connector.ClassNotReady, Source: fromVendor},
	connector.CodeRow{Code: "-109", Class: connector.ClassNotReady, Source: fromVendor},
	// For a person.
	connector.CodeRow{Code: "-107", Class: connector.ClassNeedsPerson, Mend: "see the order in Sectigo Certificate Manager", Source: fromVendor},
	connector.CodeRow{Code: "-737", Class: connector.ClassNeedsPerson, Mend: domainMend, Source: fromVendor},
	connector.CodeRow{Code: "-1137", Class: connector.ClassNeedsPerson, Mend: domainMend, Source: fromVendor},
	connector.CodeRow{Code: "-715", Class: connector.ClassNeedsPerson, Mend: "activate the domain in Sectigo Certificate Manager", Source: fromVendor},
	connector.CodeRow{Code: "-727", Class: connector.ClassNeedsPerson, Mend: domainMend, Source: fromClients},
	connector.CodeRow{Code: "-843", Class: connector.ClassNeedsPerson, Mend: "have the organization validated in Sectigo Certificate Manager", Source: fromVendor},
	connector.CodeRow{Code: "-1140", Class: connector.ClassNeedsPerson, Mend: "have a second administrator approve the request", Source: fromVendor},
	connector.CodeRow{Code: "-993", Class: connector.ClassNeedsPerson, Mend: "ask Sectigo why orders of the account are restricted", Source: fromVendor},
	// Refused for good.
	connector.CodeRow{Code: "-9", Class: connector.ClassRefused, Mend: csrMend, Source: fromVendor},
	connector.CodeRow{Code: "-10", Class: connector.ClassRefused, Mend: csrMend, Source: fromVendor},
	connector.CodeRow{Code: "-11", Class: connector.ClassRefused, Mend: csrMend, Source: fromVendor},
	connector.CodeRow{Code: "-12", Class: connector.ClassRefused, Mend: csrMend, Source: fromVendor},
	connector.CodeRow{Code: "-13", Class: connector.ClassRefused, Mend: csrMend, Source: fromVendor},
	connector.CodeRow{Code: "-14", Class: connector.ClassRefused, Mend: csrMend, Source: fromVendor},
	connector.CodeRow{Code: "-138", Class: connector.ClassRefused, Mend: csrMend, Source: fromVendor},
	connector.CodeRow{Code: "-102", Class: connector.ClassRefused, Source: fromVendor},
	connector.CodeRow{Code: "-110", Class: connector.ClassRefused, Mend: "the certificate is revoked: order another one", Source: fromVendor},
	connector.CodeRow{Code: codeRevokedAlready, Class: connector.ClassRefused, Source: fromBoth},
	// Settings.
	connector.CodeRow{Code: "-36", Class: connector.ClassConfig, Mend: "give the issuer terms that the profile has", Source: fromVendor},
	connector.CodeRow{Code: "-37", Class: connector.ClassConfig, Mend: "check the issuer's organization, and that the API is enabled there for certificates of this kind", Source: fromVendor},
	connector.CodeRow{Code: "-39", Class: connector.ClassConfig, Mend: "check the issuer's profile", Source: fromVendor},
	connector.CodeRow{Code: "-62", Class: connector.ClassConfig, Mend: "give the issuer the custom fields that the account's orders must have", Source: fromVendor},
	connector.CodeRow{Code: "-126", Class: connector.ClassConfig, Mend: "give the issuer another format of certificates", Source: fromVendor},
	// Who asks.
	connector.CodeRow{Code: "-16", Class: connector.ClassCredentials, Mend: loginMend, Source: fromBoth},
	connector.CodeRow{Code: "-970", Class: connector.ClassCredentials, Mend: loginMend, Source: fromVendor},
	// Which order.
	connector.CodeRow{Code: "-124", Class: connector.ClassNotFound, Source: fromVendor},
	connector.CodeRow{Code: "-169", Class: connector.ClassNotFound, Source: fromVendor},
)

// reasons are the codes of RFC 5280 section 5.3.1 that the vendor takes; any other
// one is sent as unspecified.
var reasons = map[int]bool{0: true, 1: true, 3: true, 4: true, 5: true}
