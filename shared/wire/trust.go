package wire

import "fmt"

// TrustPath answers anybody with the generations of trust (package trust) that
// they lack. Nothing in the request is secret and nothing in the answer needs a
// trusted connection: the generations prove themselves.
const TrustPath = "/agent/v1/trust"

// Limits of TrustPath.
const (
	MaxTrustRequest = 4 << 10
	trustDigestSize = 32
)

// TrustPosition is the generation that a host has come to; zero if it does not
// know it. Digest is that of the generation, 32 octets.
type TrustPosition struct {
	Generation uint64 `json:"generation"`
	Digest     []byte `json:"digest,omitempty"`
}

// TrustRequest asks for what follows a generation. The answer has the whole
// chain if the coordinator does not know that generation.
type TrustRequest struct {
	Protocol int           `json:"protocol"`
	Trust    TrustPosition `json:"trust"`
}

// TrustResponse has signed generations, oldest first.
type TrustResponse struct {
	Generations [][]byte `json:"generations"`
}

// Validate checks the shape of the request.
func (r *TrustRequest) Validate() *Problem {
	if p := checkProtocol(r.Protocol); p != nil {
		return p
	}
	return r.Trust.validate("trust")
}

func (t *TrustPosition) validate(field string) *Problem {
	if t == nil || t.Generation == 0 && len(t.Digest) == 0 || t.Generation > 0 && len(t.Digest) == trustDigestSize {
		return nil
	}
	return invalid(field, fmt.Sprintf("expected a generation with a digest of %d octets, or neither", trustDigestSize), "")
}
