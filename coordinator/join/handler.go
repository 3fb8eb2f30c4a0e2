package join

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/wire"
)

// patience bounds the work on one request.
const patience = 20 * time.Second

// admissionRetry spaces the attempts to change a membership that others change
// at the same time.
var admissionRetry = backoff.Policy{Initial: 20 * time.Millisecond, Max: time.Second, Multiplier: 2, Jitter: 0.5}

// Cluster is the cluster as the node that answers sees it; *cluster.Node is one.
type Cluster interface {
	ID() string
	State() *fleet.State
	Propose(ctx context.Context, commands ...fleet.Command) ([]fleet.Result, error)
	IsLeader() bool
	Members() (members []cluster.Member, configuration uint64)
	AddMember(ctx context.Context, id, address string, prevIndex uint64) error
	CheckAddress(ctx context.Context, id, address string) error
}

// HandlerConfig is what a Handler needs. All but Now is required.
type HandlerConfig struct {
	Node Cluster
	// SealKey is the seal key of this node, and whether it may be given to others:
	// one that comes from the configuration is the operators' matter.
	SealKey func() (key ca.SealKey, give bool, err error)
	Log     *slog.Logger
	Now     func() time.Time // nil is time.Now
}

// Handler answers Path. Only the leader lets nodes in: on another node, the
// request is handed on before it comes here.
type Handler struct {
	HandlerConfig
}

// NewHandler checks the configuration.
func NewHandler(c HandlerConfig) (*Handler, error) {
	if c.Node == nil || c.SealKey == nil || c.Log == nil {
		return nil, errors.New("join: one of Node, SealKey and Log is missing")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Handler{c}, nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		p := problem.New(wire.CodeInvalid, "", r.Method+" is not supported here", "use POST")
		p.Status, p.Title = http.StatusMethodNotAllowed, http.StatusText(http.StatusMethodNotAllowed)
		problem.Write(w, r, p)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	granted, err := h.admit(ctx, r)
	if err != nil {
		p, defect := problem.Of(err)
		level := slog.LevelWarn
		if defect {
			level = slog.LevelError
		}
		h.Log.Log(ctx, level, "a node was not let into the cluster", "code", p.Code, "field", p.Field,
			"remote", r.RemoteAddr, "request_id", r.Header.Get(problem.RequestIDHeader), "err", err)
		problem.Write(w, r, p)
		return
	}
	body, err := json.Marshal(granted)
	if err != nil {
		panic("join: " + err.Error()) // octets and texts
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // a node that is gone asks again
}

// admit lets a node in. All of it can be repeated: the token gives the same
// answer to the same key.
func (h *Handler) admit(ctx context.Context, r *http.Request) (*answer, error) {
	if !h.Node.IsLeader() {
		return nil, problem.Later(wire.CodeUnavailable, "this node does not lead the cluster at the moment", 2*time.Second)
	}
	var asked request
	if p := wire.Decode(r.Body, MaxRequest, &asked); p != nil {
		return nil, p
	}
	if asked.Protocol != protocol {
		return nil, problem.New(wire.CodeProtocol, "protocol", fmt.Sprintf("version %d of the join protocol is not known here, only %d", asked.Protocol, protocol),
			"install the version of the other nodes on the new one")
	}
	token, err := asked.tokenOf()
	if err != nil {
		return nil, err
	}
	record, err := asked.Node.record()
	if err != nil {
		return nil, err
	}
	if record.Level < fleet.Level {
		return nil, problem.New(wire.CodeInvalid, "node.version", fmt.Sprintf("the new node runs %s, which is older than this cluster", record.Version),
			"install the version of the other nodes on the new one")
	}
	if _, ok := h.Node.State().View().ClusterCA(); !ok {
		return nil, problem.Later(wire.CodeUnavailable, "the cluster has no CA of its own yet", 2*time.Second)
	}
	// By which the new node is to know it, among those before the new node's own.
	if _, ok := h.Node.State().View().ClusterNode(h.Node.ID()); !ok {
		return nil, problem.Later(wire.CodeUnavailable, "the node that leads has not told the cluster about itself yet", 2*time.Second)
	}
	key, give, err := h.SealKey()
	if err != nil {
		return nil, err
	}
	if h.holds(token) {
		if err := checkSealKey(asked.Node.SealKeyID, key, give); err != nil {
			return nil, err
		}
		if err := h.Node.CheckAddress(ctx, record.ID, record.Address); err != nil {
			return nil, err
		}
	}
	command, err := fleet.NewCommand(h.Now(), fleet.UseJoinToken{ID: token.ID, SecretHash: token.SecretHash(), Node: record})
	if err != nil {
		return nil, err
	}
	results, err := h.Node.Propose(ctx, command)
	if err != nil {
		return nil, err
	}
	var joined fleet.JoinedNode
	if err := results[0].Decode(&joined); err != nil {
		return nil, err
	}
	members, configuration, err := h.addMember(ctx, &record)
	if err != nil {
		return nil, err
	}
	if err := h.keepRecord(ctx, record); err != nil {
		return nil, err
	}
	h.Log.Info("a node joins the cluster", "node_id", record.ID, "address", record.Address, "token_id", token.ID, "repeated", joined.Repeated)
	// As it is now that the node is a member: a rotation waits for it from here on.
	stored, ok := h.Node.State().View().ClusterCA()
	if !ok {
		return nil, problem.Later(wire.CodeUnavailable, "the state was replaced meanwhile", 2*time.Second)
	}
	granted := &answer{Protocol: protocol, ModifyIndex: stored.ModifyIndex, SealID: key.String(), Members: members, Configuration: configuration}
	for _, a := range stored.Authorities {
		granted.Authorities = append(granted.Authorities, authority{Certificate: a.Certificate, SealedKey: a.SealedKey, State: a.State})
	}
	if builtIn, ok := h.Node.State().View().CA(); ok {
		if granted.ClusterID, err = ca.StoredClusterID(builtIn); err != nil {
			return nil, err
		}
	}
	if give {
		granted.SealKey = key.Reveal()
	}
	return granted, nil
}

// holds reports whether a token is one of this cluster's. A stranger learns
// nothing about the cluster; why its token is none, the state says.
func (h *Handler) holds(token jointoken.Token) bool {
	stored, ok := h.Node.State().View().JoinToken(token.ID)
	hash := token.SecretHash()
	return ok && subtle.ConstantTimeCompare(stored.SecretHash[:], hash[:]) == 1
}

// checkSealKey refuses a node that could not open what the cluster has sealed,
// before its token is spent. configured names the key that the node has.
func checkSealKey(configured string, key ca.SealKey, give bool) error {
	const field = "ca.seal_key"
	switch {
	case configured != "" && configured != key.String():
		return problem.New(wire.CodeConflict, field, fmt.Sprintf("the new node has %.80q configured, and the cluster has %q", configured, key.String()),
			"configure the same key on every node")
	case configured == "" && !give:
		return problem.New(wire.CodeConflict, field, fmt.Sprintf("the nodes of this cluster get their seal key, %q, from the configuration, and the new node has none there", key.String()),
			"configure the same key on every node: set ca.seal_key (CERTCTL_CA_SEAL_KEY or CERTCTL_CA_SEAL_KEY_FILE) on the new one too")
	}
	return nil
}

// keepRecord sees that the record of a node which is a member now is there: the
// removal of a member that had its id may have been cleaning up after itself.
func (h *Handler) keepRecord(ctx context.Context, record fleet.ClusterNode) error {
	if _, ok := h.Node.State().View().ClusterNode(record.ID); ok {
		return nil
	}
	command, err := fleet.NewCommand(h.Now(), fleet.AnnounceNode{Node: record})
	if err != nil {
		return err
	}
	results, err := h.Node.Propose(ctx, command)
	if err != nil {
		return err
	}
	return results[0].Err()
}

// addMember gives a node a place in the cluster, without a vote at first, and
// lists those that were there before. in is the index of a configuration that the
// node is in.
func (h *Handler) addMember(ctx context.Context, record *fleet.ClusterNode) (members []Member, in uint64, err error) {
	for attempt := 1; ; attempt++ {
		present, configuration := h.Node.Members()
		members = nil
		known, view := false, h.Node.State().View()
		for _, m := range present {
			if m.ID == record.ID {
				known = m.Address == record.Address
				continue
			}
			member := Member{ID: m.ID, Address: m.Address}
			if record, ok := view.ClusterNode(m.ID); ok {
				member.Key = record.KeyFingerprint
			}
			members = append(members, member)
		}
		if known {
			return members, configuration, nil
		}
		err := h.Node.AddMember(ctx, record.ID, record.Address, configuration)
		if err == nil {
			continue // it is known now
		}
		if _, changed := errors.AsType[*cluster.ConflictError](err); !changed || backoff.Wait(ctx, admissionRetry.Delay(attempt, nil)) != nil {
			return nil, 0, err
		}
	}
}
