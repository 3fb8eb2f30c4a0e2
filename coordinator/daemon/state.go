package daemon

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/config"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/join"
	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/coordinator/peer"
	"github.com/certctl/certctl/shared/buildinfo"
	"github.com/certctl/certctl/shared/durable"
)

// A directory is the data directory of a node, from its first file to its Raft
// state.
type directory struct {
	settings  *config.Settings
	log       *slog.Logger
	ca        *ca.CA // knows where the seal key is
	advertise string // address at which the other nodes reach this one
	url       string // of its HTTPS server

	nodeID    string
	clusterID string // said by the cluster that this start has joined
	sealKey   ca.SealKey
	journal   *history.Journal
	identity  *peer.Identity
}

// open makes the directory ready for a node to run on, and at the first start
// makes it. It returns with the journal open; the caller closes it.
func (d *directory) open(ctx context.Context) (how beginning, err error) {
	if err := durable.EnsurePrivateDir(d.settings.DataDir); err != nil {
		return "", err
	}
	if err := checkNewID(d.settings); err != nil {
		return "", err
	}
	wanted := founds
	if d.settings.Cluster.JoinToken.IsSet() {
		wanted = joins
	}
	if how, err = begin(d.settings, wanted); err != nil {
		return how, err
	}
	if d.nodeID, err = nodeID(d.settings); err != nil {
		return how, err
	}
	if err := d.openJournal(how); err != nil {
		return how, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.journal.Close())
			d.journal = nil
		}
	}()
	switch how {
	case founds:
		err = d.found()
	case joins:
		err = d.join(ctx)
	default:
		d.checkToken()
		err = d.reopen()
	}
	if err != nil || how == restarts {
		return how, err
	}
	if err := durable.Remove(filepath.Join(d.settings.DataDir, intentFile)); err != nil {
		return how, fmt.Errorf("first start: %w", err)
	}
	return how, nil
}

func (d *directory) openJournal(how beginning) (err error) {
	journal := history.Config{
		Path: filepath.Join(d.settings.DataDir, journalFile), Log: d.log.With("part", "journal"),
		MaxAge: d.settings.Journal.Retention, MaxBytes: d.settings.Journal.MaxBytes,
	}
	if how != restarts {
		d.journal, err = history.Create(journal)
	}
	if how == restarts || errors.Is(err, history.ErrExists) {
		d.journal, err = history.Open(journal)
	}
	if err != nil || how == restarts {
		return err
	}
	// Facts come after the Raft state: there is none yet that they could be of.
	if through := d.journal.Through(); through > 0 {
		return errors.Join(fmt.Errorf("%s: the journal ends at log entry %d, and there is no log: %w", journal.Path, through, cluster.ErrJournalAhead),
			d.journal.Close())
	}
	return nil
}

// raftConfig is what Raft's state is made with. It has no transport: nothing
// connects.
func (d *directory) raftConfig() cluster.Config {
	return cluster.Config{Dir: d.settings.DataDir, NodeID: d.nodeID, Journal: d.journal, Advertise: d.advertise, Log: d.log.With("part", "cluster")}
}

func (d *directory) identityConfig() peer.Config {
	return peer.Config{Dir: d.settings.DataDir, NodeID: d.nodeID, SealKey: d.sealKey, Log: d.log.With("part", "node identity")}
}

// found makes the state of a cluster of this node alone.
func (d *directory) found() (err error) {
	d.log.Info("first start: a cluster of this node alone is made", "node_id", d.nodeID)
	if d.sealKey, err = d.ca.EnsureSealKey(); err != nil {
		return err
	}
	if err := d.ensureIdentity(); err != nil {
		return err
	}
	return cluster.Bootstrap(d.raftConfig(), nil)
}

// reopen finds the state as an earlier start has left it.
func (d *directory) reopen() (err error) {
	if d.sealKey, err = d.ca.SealKey(); err != nil {
		return fmt.Errorf("open the data directory: %w", err)
	}
	return d.ensureIdentity()
}

// checkToken warns of a join token that is still configured, and of another cluster
// than the state: whoever set it may believe that the node has moved.
func (d *directory) checkToken() {
	if !d.settings.Cluster.JoinToken.IsSet() {
		return
	}
	token, err := jointoken.Parse(d.settings.Cluster.JoinToken.Reveal())
	if err == nil {
		_, err = CheckToken(d.settings.DataDir, token)
	}
	if err != nil {
		d.log.Warn("cluster.join_token has no effect: this data directory was set up before", "err", err)
	}
}

// ensureIdentity opens the node's identity. A node that has none, because it
// founds a cluster or did so with a version that knew no other nodes, makes the
// cluster's CA: the leader stores it when the state has none.
func (d *directory) ensureIdentity() error {
	exists, err := peer.Exists(d.settings.DataDir)
	if err != nil {
		return err
	}
	if exists {
		if d.identity, err = peer.Open(d.identityConfig()); errors.Is(err, ca.ErrWrongSealKey) {
			return fmt.Errorf("%s: %w", d.sealKeySource(), err)
		}
		return err
	}
	authority, err := clusterca.Create(d.sealKey, time.Now())
	if err != nil {
		return err
	}
	d.identity, err = peer.Create(d.identityConfig(), &fleet.ClusterCA{Authorities: []fleet.ClusterAuthority{authority}})
	return err
}

// sealKeySource says where the seal key comes from.
func (d *directory) sealKeySource() string {
	if d.settings.CA.SealKey.IsSet() {
		return "ca.seal_key"
	}
	return filepath.Join(d.settings.DataDir, sealKeyFile)
}

// join asks the cluster that the token means to let this node in, and keeps what
// it answers. Each step can be repeated: the node's key, by which the cluster
// knows it again, is on disk before the first request.
func (d *directory) join(ctx context.Context) error {
	token, err := jointoken.Parse(d.settings.Cluster.JoinToken.Reveal())
	if err != nil {
		return err
	}
	public, err := peer.EnsureKey(d.identityConfig())
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	configured, err := d.configuredSealKey()
	if err != nil {
		return err
	}
	d.log.Info("first start: this node joins a cluster", "node_id", d.nodeID, "address", d.advertise, "token_id", token.ID, "servers", token.URLs)
	admission, err := join.Ask(ctx, token, join.Node{
		ID: d.nodeID, Address: d.advertise, URL: d.url, Version: buildinfo.Version(), Level: fleet.Level, PublicKey: der,
		SealKeyID: configured,
	}, d.log)
	if err != nil {
		return err
	}
	d.clusterID = admission.ClusterID
	if err := d.adoptSealKey(admission); err != nil {
		return err
	}
	if d.identity, err = peer.Create(d.identityConfig(), &admission.ClusterCA); err != nil {
		return err
	}
	var members []raft.Server
	keys := map[string]string{}
	for _, m := range admission.Members {
		members = append(members, raft.Server{ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Address)})
		keys[m.ID] = m.Key
	}
	return cluster.Prepare(d.raftConfig(), members, keys, admission.Configuration)
}

// configuredSealKey names the seal key that the configuration gives, if it does.
func (d *directory) configuredSealKey() (string, error) {
	if !d.settings.CA.SealKey.IsSet() {
		return "", nil
	}
	key, err := d.ca.SealKey()
	if err != nil {
		return "", err
	}
	return key.String(), nil
}

// adoptSealKey takes over the cluster's seal key, or finds it in the
// configuration.
func (d *directory) adoptSealKey(admission *join.Admission) (err error) {
	switch {
	case d.settings.CA.SealKey.IsSet():
		if d.sealKey, err = d.ca.SealKey(); err != nil {
			return err
		}
		if d.sealKey.String() != admission.SealKeyID {
			return fmt.Errorf("ca.seal_key is %s, and the cluster has %s: configure the same key on every node", d.sealKey, admission.SealKeyID)
		}
		return nil
	case admission.SealKey == nil:
		return fmt.Errorf("the nodes of this cluster get their seal key, %s, from the configuration: "+
			"set ca.seal_key (CERTCTL_CA_SEAL_KEY or CERTCTL_CA_SEAL_KEY_FILE) on this node too, then start it again", admission.SealKeyID)
	}
	d.sealKey = *admission.SealKey
	return ca.KeepSealKey(filepath.Join(d.settings.DataDir, sealKeyFile), d.sealKey)
}

// nodeOf is the name of the node that a data directory belongs to. The error wraps
// fs.ErrNotExist if it belongs to none.
func nodeOf(dataDir string) (string, error) {
	path := filepath.Join(dataDir, nodeIDFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("node id: %w", err)
	}
	id := strings.TrimSpace(string(text))
	if err := clusterca.CheckNodeID(id); err != nil {
		return "", fmt.Errorf("%s: %w; restore it from a backup", path, err)
	}
	return id, nil
}

// checkNewID refuses a configured name that stands badly in file names, URLs and
// command lines. A node that has such a name keeps it.
func checkNewID(s *config.Settings) error {
	refused := config.CheckNewNodeID(s.NodeID)
	if refused == nil {
		return nil
	}
	if exists, err := cluster.HasState(s.DataDir); err != nil || exists {
		return err
	}
	if _, err := nodeOf(s.DataDir); err == nil {
		return nil
	}
	return fmt.Errorf("node_id: %w", refused)
}

// nodeID is this node's name: the one configured, else the one that the first
// start made. The name in the data directory counts, since Raft knows it.
func nodeID(s *config.Settings) (string, error) {
	path := filepath.Join(s.DataDir, nodeIDFile)
	id, err := nodeOf(s.DataDir)
	if err == nil {
		if s.NodeID != "" && s.NodeID != id {
			return "", fmt.Errorf("node_id is %q, but this data directory belongs to the node %q (%s): leave node_id out, or use an empty data directory", s.NodeID, id, path)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if id = s.NodeID; id == "" {
		id = "node-" + strings.ToLower(rand.Text()[:10])
	}
	if err := durable.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("node id: %w", err)
	}
	return id, nil
}
