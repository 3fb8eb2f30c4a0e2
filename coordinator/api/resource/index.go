package resource

// Index is the name of the header that tells how far the node that answered had
// applied the cluster's log: the answer shows every change up to there. Every
// answer that is no problem document has it; that of a change includes the change.
const Index = "X-Certctl-Index"

// The parameters of reads that say how new the answer has to be.
const (
	MinIndex   = "min_index"
	Consistent = "consistent"
)

// Servers is the name of the header that tells the URLs of the cluster's nodes,
// parted by spaces, that of the node that answers first. Answers have it where they
// have [Index].
const Servers = "X-Certctl-Servers"

// TokenExpires is the header of answers to a token that ends soon: when, in RFC 3339, and
// TokenExpiryFixed after it if a rotation does not put that off.
const (
	TokenExpires     = "X-Certctl-Token-Expires"
	TokenExpiryFixed = "; fixed"
)
