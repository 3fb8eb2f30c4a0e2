package digicert

import "github.com/certctl/certctl/coordinator/connector"

// Sources of rows: what DigiCert's own pages say, and clients of others that agree.
const (
	fromVendor  = "vendor's pages"
	fromBoth    = "vendor's pages and clients"
	fromClients = "clients"
)

const approveMend = "have an administrator of the CertCentral account approve the request of this order, or have requests approved by themselves there"

// stateTable has every state of an order that is documented. Words are compared
// without regard to case: older answers have CANCELED.
var stateTable = connector.NewStates(
	connector.StateRow{Word: "needs_approval", State: connector.NeedsPerson, Mend: approveMend, Source: fromBoth},
	connector.StateRow{Word: "pending", State: connector.Pending, Source: fromBoth},
	connector.StateRow{Word: "processing", State: connector.Pending, Source: fromClients},
	// Pending for the reissue. The certificate of before is still good.
	connector.StateRow{Word: "reissue_pending", State: connector.Pending, Source: fromBoth},
	connector.StateRow{Word: "waiting_pickup", State: connector.NeedsPerson, Mend: "the recipient that the order names has to pick it up; see the order in CertCentral", Source: fromBoth},
	connector.StateRow{Word: "issued", State: connector.Issued, Source: fromBoth},
	// Issued if there is a certificate already: see status.
	connector.StateRow{Word: "approved", State: connector.Issued, Source: fromClients},
	connector.StateRow{Word: "expired", State: connector.Ended, Source: fromBoth},
	connector.StateRow{Word: "rejected", State: connector.Rejected, Source: fromBoth},
	connector.StateRow{Word: "denied", State: connector.Rejected, Source: fromBoth},
	connector.StateRow{Word: "canceled", State: connector.Cancelled, Source: fromBoth},
	connector.StateRow{Word: "cancelled", State: connector.Cancelled, Source: fromClients},
	connector.StateRow{Word: "revoked", State: connector.Revoked, Source: fromBoth},
)

// requestTable has the states of the request within a new order.
var requestTable = connector.NewStates(
	connector.StateRow{Word: "pending", State: connector.NeedsPerson, Mend: approveMend, Source: fromBoth},
	connector.StateRow{Word: "needs_approval", State: connector.NeedsPerson, Mend: approveMend, Source: fromVendor},
	connector.StateRow{Word: "submitted", State: connector.Pending, Source: fromVendor},
	connector.StateRow{Word: "approved", State: connector.Pending, Source: fromBoth},
	connector.StateRow{Word: "rejected", State: connector.Rejected, Source: fromVendor},
)

// codeDuplicate is what clones of the API say that keep references unique.
const codeDuplicate = "duplicate_alternative_order_id"

// codeTable has every code of failures that is documented or was seen.
var codeTable = connector.NewCodes(
	connector.CodeRow{Code: "not_found", Class: connector.ClassNotFound, Source: fromBoth},
	connector.CodeRow{Code: "not_found|order", Class: connector.ClassNotFound, Source: fromVendor},
	connector.CodeRow{Code: "not_found|product", Class: connector.ClassConfig, Mend: "set the issuer's product to a name_id that the account may order", Source: fromVendor},
	connector.CodeRow{Code: "not_found|route", Class: connector.ClassConfig, Mend: "set the issuer's URL to the Services API, which ends in /services/v2", Source: fromVendor},
	connector.CodeRow{Code: "access_denied", Class: connector.ClassCredentials, Mend: "check the issuer's API key and what its user may do", Source: fromBoth},
	connector.CodeRow{Code: "access_denied|missing_permission", Class: connector.ClassCredentials, Mend: "give the user of the API key the permission, or take skip_approval out of the issuer's settings", Source: fromBoth},
	connector.CodeRow{Code: "access_denied|invalid_approver", Class: connector.ClassNeedsPerson, Mend: "have another administrator decide about the request in CertCentral", Source: fromBoth},
	connector.CodeRow{Code: "bad_request_format", Class: connector.ClassRefused, Mend: "compare the issuer's settings with what the product needs, such as an organization", Source: fromVendor},
	connector.CodeRow{Code: "csr_invalid_cannot_parse", Class: connector.ClassRefused, Mend: "see whether the account takes keys of this kind", Source: fromVendor},
	connector.CodeRow{Code: "cert_validity_exceeds_order_validity", Class: connector.ClassConfig, Mend: "shorten the issuer's validity", Source: fromVendor},
	connector.CodeRow{Code: "ambiguous_product", Class: connector.ClassConfig, Mend: "set the issuer's product to a name_id that means one product", Source: fromVendor},
	connector.CodeRow{Code: "auth_key_not_setup", Class: connector.ClassConfig, Mend: "set up an AuthKey in CertCentral, or use another method of validation", Source: fromVendor},
	connector.CodeRow{Code: "caa_check_failed", Class: connector.ClassNeedsPerson, Mend: "let the CAA records of the name admit digicert.com", Source: fromVendor},
	connector.CodeRow{Code: "caa_not_found", Class: connector.ClassNeedsPerson, Mend: "see that the CAA records of the name can be looked up", Source: fromVendor},
	connector.CodeRow{Code: "time_frame_too_long", Class: connector.ClassRefused, Source: fromVendor},
	connector.CodeRow{Code: "webhook_invalid_endpoint", Class: connector.ClassConfig, Source: fromVendor},
	connector.CodeRow{Code: "request_limit_exceeded", Class: connector.ClassBusy, Source: fromBoth},
	connector.CodeRow{Code: codeDuplicate, Class: connector.ClassRetry, Source: fromClients},
)

// reasons are those of RFC 5280 section 5.3.1 as the vendor calls them. It has no
// words for the others.
var reasons = map[int]string{
	0: "unspecified", 1: "key_compromise", 3: "affiliation_changed", 4: "superseded", 5: "cessation_of_operation", 9: "privilege_withdrawn",
}
