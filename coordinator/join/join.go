// Package join brings a new node into a cluster of coordinators: the request of
// the node that has a join token, and the answer of the cluster, which lets the
// node in and gives it what a node needs to have.
//
// The node asks over the HTTPS port of any node that it can reach, and trusts the
// root that its token names. See DESIGN.md.
package join

import (
	"crypto/x509"
	"fmt"
	"net"
	"strconv"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/pki"
	"github.com/certctl/certctl/shared/wire"
)

// Path is where a node asks to be let in, by POST.
const Path = "/cluster/v1/join"

const (
	// protocol counts the versions of the two documents.
	protocol = 1
	// MaxRequest bounds the body of a request, in octets.
	MaxRequest = 16 << 10
	maxAnswer  = 1 << 20
	maxMembers = fleet.MaxClusterNodes
)

// Node is what a new node says about itself.
type Node struct {
	ID      string `json:"id"`
	Address string `json:"address"` // host:port, at which the other nodes reach it
	URL     string `json:"url,omitempty"`
	Version string `json:"version"`
	Level   uint32 `json:"level"` // see fleet.Level
	// PublicKey is that of its node key: a DER SubjectPublicKeyInfo.
	PublicKey []byte `json:"public_key"`
	// SealKeyID names the seal key of the node's configuration, as a SealKey prints
	// itself. It is empty if none is configured.
	SealKeyID string `json:"seal_key_id,omitempty"`
}

// request is the document that a node sends.
type request struct {
	Protocol int    `json:"protocol"`
	Token    string `json:"token"`
	Node     Node   `json:"node"`
}

// A Member is a node of the cluster, by its id and the address at which the
// others reach it.
type Member struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	// Key is the fingerprint of the node's key, as its record has it; "" in the
	// answer of an earlier version.
	Key string `json:"key_fingerprint,omitempty"`
}

// answer is the document that a node gets.
type answer struct {
	Protocol    int         `json:"protocol"`
	ClusterID   string      `json:"cluster_id,omitempty"` // of the built-in CA
	Authorities []authority `json:"authorities"`          // of the cluster's own CA, the one that signs first
	ModifyIndex uint64      `json:"modify_index"`
	// SealKey opens the sealed keys of the cluster's CA and of the built-in CA. It
	// is empty where every node gets the key from its configuration.
	SealKey string   `json:"seal_key,omitempty"`
	SealID  string   `json:"seal_key_id"`
	Members []Member `json:"members"`
	// Configuration is the index of one that has the new node in it; 0 in the answer
	// of an earlier version.
	Configuration uint64 `json:"configuration,omitempty"`
}

type authority struct {
	Certificate []byte               `json:"certificate"`
	SealedKey   []byte               `json:"sealed_key,omitempty"`
	State       fleet.AuthorityState `json:"state,omitempty"`
}

// Admission is what a node needs to have to take part in the cluster.
type Admission struct {
	// ClusterID names the cluster by its built-in CA; "" if it does not say so.
	ClusterID string
	ClusterCA fleet.ClusterCA
	// SealKey is nil if the configuration has to give the key.
	SealKey *ca.SealKey
	// SealKeyID names the key that the cluster uses, as a SealKey prints itself.
	SealKeyID string
	// Members are the nodes that were in the cluster before.
	Members []Member
	// Configuration is the index of the configuration that the node became a member
	// with, or of a later one; 0 if it was not told.
	Configuration uint64
}

// record is a node's record as the state keeps it. The error is a *wire.Problem
// that names the field.
func (n *Node) record() (fleet.ClusterNode, error) {
	if err := checkAddress(n.Address); err != nil {
		return fleet.ClusterNode{}, problem.New(wire.CodeInvalid, "node.address", err.Error(), "set cluster.advertise on the new node")
	}
	key, err := x509.ParsePKIXPublicKey(n.PublicKey)
	if err != nil {
		return fleet.ClusterNode{}, problem.New(wire.CodeInvalid, "node.public_key", "the public key cannot be read", "")
	}
	if err := pki.CheckPublicKey(key); err != nil {
		return fleet.ClusterNode{}, problem.New(wire.CodeInvalid, "node.public_key", err.Error(), "")
	}
	fingerprint, err := pki.PublicKeyFingerprint(key)
	if err != nil {
		return fleet.ClusterNode{}, problem.New(wire.CodeInvalid, "node.public_key", "the public key cannot be read", "")
	}
	return fleet.ClusterNode{
		ID: n.ID, Address: n.Address, URL: n.URL, Version: n.Version, Level: n.Level, KeyFingerprint: fingerprint,
	}, nil
}

// checkAddress refuses an address that no other node could reach.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("the address %.80q is not host:port", address)
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return fmt.Errorf("the address %.80q has no port", address)
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		return fmt.Errorf("the address %.80q is none that another node could reach", address)
	}
	return nil
}

// tokenOf reads a token out of a request.
func (r *request) tokenOf() (jointoken.Token, error) {
	token, err := jointoken.Parse(r.Token)
	if err != nil {
		return token, problem.New(wire.CodeTokenUnknown, "token", err.Error(), "give the whole token")
	}
	return token, nil
}
