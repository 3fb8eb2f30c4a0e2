package acme

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/certctl/certctl/agent/issuer"
)

// state is what Order.Save keeps: enough to continue the order from any crash.
type state struct {
	Directory string `json:"directory"`
	// Order is the order's URL, set as soon as the authority has named it.
	Order string `json:"order"`
	// Finalizing says that a CSR may have been sent.
	Finalizing bool `json:"finalizing,omitempty"`
	// Certificate is where the certificate can be downloaded. It outlives the
	// order at some authorities.
	Certificate string `json:"certificate,omitempty"`
}

func parseState(raw json.RawMessage) (state, error) {
	var s state
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return s, nil
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return state{}, &issuer.Error{Class: issuer.ClassOrderGone, Err: fmt.Errorf("the saved state of the order cannot be read: %w", err)}
	}
	if s.Order == "" || s.Directory == "" {
		return state{}, &issuer.Error{Class: issuer.ClassOrderGone, Err: fmt.Errorf("the saved state %.200q names no order", raw)}
	}
	return s, nil
}
