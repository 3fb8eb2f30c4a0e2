package clusterca

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/pki"
)

// ErrRotation says that a rotation does not fit what is stored.
var ErrRotation = errors.New("the cluster's root cannot be rotated so now")

// Step is where the rotation of the cluster's root stands.
type Step string

// Steps of a rotation, in their order.
const (
	StepNone     Step = ""         // none is under way
	StepActivate Step = "activate" // the new root is published; it signs as soon as all members trust it
	StepRetire   Step = "retire"   // the new root signs; the old one goes as soon as no member's certificate needs it
)

// Begin publishes a new root beside the one that signs, to be stored. It changes
// nothing by itself. Errors wrap ErrRotation while another rotation is under way,
// or are those of Parse and Unseal.
func Begin(stored *fleet.ClusterCA, key ca.SealKey, actor string, now time.Time) (fleet.ChangeClusterCA, error) {
	change := fleet.ChangeClusterCA{Actor: actor, PrevIndex: stored.ModifyIndex}
	roots, err := Parse(stored)
	if err != nil {
		return change, fmt.Errorf("rotate the cluster's root: %w", err)
	}
	if len(stored.Authorities) > 1 {
		return change, fmt.Errorf("%w: a rotation is under way, and ends by itself when all members have followed", ErrRotation)
	}
	// A wrong seal key would make a root that no other node can use.
	if _, err := roots.Unseal(key); err != nil {
		return change, fmt.Errorf("rotate the cluster's root: %w", err)
	}
	signer, err := pki.GenerateKey(pki.ECDSAP256)
	if err != nil {
		return change, fmt.Errorf("rotate the cluster's root: %w", err)
	}
	made, err := makeRoot(roots.ClusterID, key, signer, now)
	if err != nil {
		return change, fmt.Errorf("rotate the cluster's root: %w", err)
	}
	made.State = fleet.AuthorityPublished
	change.Authorities = append(slices.Clone(stored.Authorities), made)
	return change, nil
}

// Progress is how far a rotation has come.
type Progress struct {
	// Step is the next one, StepNone if no rotation is under way.
	Step Step
	// Waiting are the members that the step waits for; while there are any, it
	// cannot be taken.
	Waiting []Waiting
}

// Waiting is a member that has not followed.
type Waiting struct {
	NodeID string
	// Why is what it has not done yet, for people.
	Why string
}

// Next makes the change that takes a rotation one step on, to be stored. members
// are the ids of all members, voters or not, and nodes their records; a member
// without a record is waited for like one that has not followed. The change is
// nil if nothing is to be done or there is somebody to wait for.
func Next(stored *fleet.ClusterCA, nodes []*fleet.ClusterNode, members []string, actor string) (*fleet.ChangeClusterCA, Progress, error) {
	if _, err := Parse(stored); err != nil {
		return nil, Progress{}, fmt.Errorf("rotate the cluster's root: %w", err)
	}
	if len(members) == 0 {
		return nil, Progress{}, fmt.Errorf("%w: a cluster has members", ErrRotation)
	}
	list := slices.Clone(stored.Authorities)
	published := slices.IndexFunc(list, func(a fleet.ClusterAuthority) bool { return a.State == fleet.AuthorityPublished })
	var progress Progress
	switch {
	case len(list) == 1:
		return nil, progress, nil
	case published >= 0:
		progress.Step = StepActivate
		progress.Waiting = lacking(nodes, members, list[published].Fingerprint(), followsActivate)
		// The old root's key has done its work. Nodes that have not heard of this
		// step yet still have it.
		old, signs := list[0], list[published]
		old.State, old.SealedKey = fleet.AuthorityRetiring, nil
		signs.State = fleet.AuthorityActive
		rest := slices.Delete(list[1:], published-1, published)
		list = append([]fleet.ClusterAuthority{signs, old}, rest...)
	default:
		progress.Step = StepRetire
		progress.Waiting = lacking(nodes, members, list[0].Fingerprint(), followsRetire)
		list = list[:1]
	}
	if len(progress.Waiting) > 0 {
		return nil, progress, nil
	}
	return &fleet.ChangeClusterCA{Actor: actor, PrevIndex: stored.ModifyIndex, Authorities: list}, progress, nil
}

func lacking(nodes []*fleet.ClusterNode, members []string, root string, why func(*fleet.ClusterNode, string) string) []Waiting {
	var waiting []Waiting
	for _, id := range members {
		i := slices.IndexFunc(nodes, func(n *fleet.ClusterNode) bool { return n.ID == id })
		reason := "it has not said yet what it trusts"
		if i >= 0 {
			reason = why(nodes[i], root)
		}
		if reason != "" {
			waiting = append(waiting, Waiting{NodeID: id, Why: reason})
		}
	}
	slices.SortFunc(waiting, func(a, b Waiting) int { return strings.Compare(a.NodeID, b.NodeID) })
	return waiting
}

func followsActivate(n *fleet.ClusterNode, root string) string {
	if slices.Contains(n.Trusts, root) {
		return ""
	}
	return "it does not trust the new root yet"
}

func followsRetire(n *fleet.ClusterNode, root string) string {
	if n.Signer == root {
		return ""
	}
	return "its certificate is still signed by the old root"
}
