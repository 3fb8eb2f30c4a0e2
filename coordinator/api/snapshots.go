package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/backup"
	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/coordinator/snapshotfile"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/wire"
)

const (
	// maxSnapshotFile bounds what is read of a file that is to be restored.
	maxSnapshotFile = 4 << 30
	// snapshotStall is how long a transfer may stand still.
	snapshotStall = time.Minute
	// restorePatience bounds what a restore may take once the file is here.
	restorePatience = 30 * time.Minute
	// servedPatience bounds the wait for this node's server to follow a restore.
	servedPatience = 15 * time.Second
)

type getSnapshot struct {
	Stale bool `query:"stale" doc:"Take what this node knows, although no leader confirms that it is everything."`
}

// putSnapshot is a request with a file, which is read as it comes in.
type putSnapshot struct {
	DryRun  bool   `query:"dry_run" doc:"Check the file and tell what would be lost, and change nothing."`
	Confirm string `query:"confirm" maxLength:"64" doc:"The id of the cluster whose state is to be replaced, so that it is not done by accident."`
	request huma.Context
}

// Resolve implements huma.Resolver.
func (p *putSnapshot) Resolve(ctx huma.Context) []error {
	p.request = ctx
	return nil
}

type restoredSnapshot struct {
	Body resource.Restored
}

func (s *server) registerSnapshots(api huma.API) {
	file := map[string]*huma.MediaType{resource.SnapshotContentType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	tags := []string{"cluster"}
	huma.Register(api, fleetWide(untagged(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "save-snapshot", Method: http.MethodGet, Path: "/api/v1/cluster/snapshot", Tags: tags,
		Summary: "Take a snapshot of the state",
		Description: "The file holds all that the coordinators know, but for the seal key and the journal: private keys are sealed in it. Its last " +
			"octets are a checksum of all, so that one that was cut off is never taken for whole. One is taken at a time on each node.",
		Responses: map[string]*huma.Response{"200": {Description: "The snapshot file.", Content: file}},
	}), "it is a file that nobody asks for twice"), ofTheCluster), s.saveSnapshot)
	huma.Register(api, fleetWide(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "restore-snapshot", Method: http.MethodPut, Path: "/api/v1/cluster/snapshot", Tags: tags,
		Summary: "Replace the state by that of a snapshot",
		Description: "Everything is checked before anything is changed: that the file is whole, that this version can read it, and that this " +
			"cluster's seal key opens the private keys in it. The cluster keeps its own nodes, CA and join tokens, and the API token of this " +
			"request. All that was changed since the snapshot is lost; agents report again what they have.",
		RequestBody: &huma.RequestBody{Required: true, Content: file},
	}), ofTheCluster), s.restoreSnapshot)
}

func (s *server) saveSnapshot(ctx context.Context, in *getSnapshot) (*huma.StreamResponse, error) {
	if !s.saving.TryLock() {
		return nil, busySnapshot("a snapshot of this node is being sent already")
	}
	if p := s.await(ctx, freshness{consistent: !in.Stale}); p != nil {
		s.saving.Unlock()
		return nil, p
	}
	pinned := s.Node.State().Snapshot()
	if _, ok := pinned.View().CA(); !ok {
		s.saving.Unlock()
		return nil, unavailable("the built-in CA is not made yet")
	}
	return &huma.StreamResponse{Body: func(answer huma.Context) {
		defer s.saving.Unlock()
		s.sendSnapshot(answer, pinned)
	}}, nil
}

func (s *server) sendSnapshot(answer huma.Context, pinned *fleet.Snapshot) {
	answer.SetHeader("Content-Type", resource.SnapshotContentType)
	answer.SetHeader("Content-Disposition", fmt.Sprintf(`attachment; filename="certctl-%d.snapshot"`, pinned.Index()))
	answer.SetStatus(http.StatusOK)
	out := &patientWriter{w: answer.BodyWriter(), control: controlOf(answer), stall: snapshotStall}
	summary, err := backup.Write(out, pinned, s.Node.ID(), s.Node.Status().Term, s.Now())
	if err != nil {
		s.Log.Warn("a snapshot was not sent to its end", "err", err)
		panic(http.ErrAbortHandler) // the client must not take it for whole
	}
	s.Log.Info("sent a snapshot", "index", summary.Index, "size", summary.Size)
}

// controlOf sets the deadlines of a request's connection, nil if it has none.
func controlOf(request huma.Context) *http.ResponseController {
	if w, ok := request.BodyWriter().(http.ResponseWriter); ok {
		return http.NewResponseController(w)
	}
	return nil
}

// patientWriter gives each write its own time, however long all of them take.
type patientWriter struct {
	w       io.Writer
	control *http.ResponseController
	stall   time.Duration
}

// Write implements io.Writer.
func (p *patientWriter) Write(b []byte) (int, error) {
	if p.control != nil {
		// A connection that cannot have one has the server's.
		_ = p.control.SetWriteDeadline(time.Now().Add(p.stall))
	}
	return p.w.Write(b)
}

// patientReader gives each read its own time.
type patientReader struct {
	r       io.Reader
	request huma.Context
	control *http.ResponseController // nil: the answer has the server's time
	stall   time.Duration
}

// Read implements io.Reader.
func (p *patientReader) Read(b []byte) (int, error) {
	_ = p.request.SetReadDeadline(time.Now().Add(p.stall))
	if p.control != nil {
		// The time for the answer counts from the request's beginning otherwise.
		_ = p.control.SetWriteDeadline(time.Now().Add(2 * p.stall))
	}
	return p.r.Read(b)
}

func (s *server) restoreSnapshot(ctx context.Context, in *putSnapshot) (*restoredSnapshot, error) {
	const doing = "restore a snapshot"
	clusterID := s.Authority.ClusterID()
	if clusterID == "" {
		return nil, unavailable("the built-in CA is not made yet")
	}
	if !in.DryRun && in.Confirm != clusterID {
		return nil, invalid("confirm", fmt.Sprintf("it has to name the cluster whose state is replaced, %s", clusterID),
			"look with dry_run=true what would be lost, then give confirm="+clusterID)
	}
	if !s.restoring.TryLock() {
		return nil, busySnapshot("a snapshot is being restored already")
	}
	defer s.restoring.Unlock()
	staged, refusal, err := s.readSnapshot(in)
	switch {
	case refusal != nil:
		return nil, refusal
	case err != nil:
		return nil, s.fail(doing, err)
	}
	view := s.Node.State().View()
	out := &restoredSnapshot{Body: resource.Restored{
		DryRun: in.DryRun, Snapshot: described(staged.summary), ClusterID: clusterID, Index: view.Index(), Rows: backup.Rows(view),
	}}
	if staged.summary.ClusterID == clusterID && view.Index() > staged.summary.Index {
		out.Body.LostChanges = view.Index() - staged.summary.Index
	}
	if in.DryRun {
		out.Body.Preview, err = s.preview(staged, view, tokenOf(ctx).ID)
		if err != nil {
			return nil, s.fail(doing, err)
		}
		return out, nil
	}
	if control := controlOf(in.request); control != nil {
		// The answer comes when all is done, which may take longer than answers do.
		_ = control.SetWriteDeadline(time.Now().Add(restorePatience + servedPatience + snapshotStall))
	}
	// The client's patience, not its presence: what is begun is best finished.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restorePatience)
	defer cancel()
	begin := s.Now()
	s.Log.Warn("a snapshot is being restored", "actor", actorOf(ctx), "snapshot_index", staged.summary.Index, "snapshot_time", staged.summary.Time, "index", view.Index())
	err = s.Node.Restore(ctx, cluster.Restoration{
		Index: staged.summary.Index, Pieces: staged.pieces, APIToken: tokenOf(ctx).ID, Now: s.Now,
		Note: fleet.NoteRestore{
			Actor: actorOf(ctx), Snapshot: fmt.Sprintf("of %s at %s", staged.summary.NodeID, staged.summary.Time.UTC().Format(time.RFC3339)),
			TakenAt: staged.summary.Time.UTC(), SnapshotIndex: staged.summary.Index, ReplacedIndex: view.Index(),
			Cluster: staged.summary.ClusterID, Digest: staged.summary.SHA256,
		},
	})
	if errors.Is(err, cluster.ErrBehindSnapshot) {
		return nil, behindSnapshot(staged, view)
	}
	if err != nil {
		return nil, s.fail(doing, err)
	}
	s.awaitServed(ctx)
	out.Body.Index = s.Node.State().Index()
	s.Log.Warn("a snapshot was restored", "actor", actorOf(ctx), "snapshot_index", staged.summary.Index, "index", out.Body.Index, "duration", s.Now().Sub(begin))
	return out, nil
}

func behindSnapshot(staged *stagedSnapshot, view *fleet.View) *Problem {
	return newProblem(wire.CodeConflict, "", fmt.Sprintf("the snapshot is of log index %d, this cluster's log is at %d and it has several nodes", staged.summary.Index, view.Index()),
		"restore it to a cluster of one node, and let the others join afterwards (see the runbook on restoring)")
}

// awaitServed returns when this node's server shows the restored CA, so that who
// has restored it can trust the new root from then on.
func (s *server) awaitServed(ctx context.Context) {
	stored, ok := s.Node.State().View().CA()
	if !ok {
		return // somebody has restored something else meanwhile
	}
	ctx, cancel := context.WithTimeout(ctx, servedPatience)
	defer cancel()
	for attempt := 1; s.Authority.Served() < stored.ModifyIndex; attempt++ {
		if err := backoff.Wait(ctx, servedPoll.Delay(attempt, nil)); err != nil {
			s.Log.Warn("the server does not show the restored CA yet", "err", err)
			return
		}
	}
}

var servedPoll = backoff.Policy{Initial: 10 * time.Millisecond, Max: 200 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2}

// stagedSnapshot is a file that was read to its end and found good.
type stagedSnapshot struct {
	summary snapshotfile.Summary
	pieces  [][]byte
	// Of a dry run, which tells more than that the snapshot is refused.
	view    *fleet.View
	refusal *Problem
}

// readSnapshot reads the whole file into a state of its own, so that nothing is
// left to find out when the cluster's is replaced.
func (s *server) readSnapshot(in *putSnapshot) (*stagedSnapshot, *Problem, error) {
	arriving := &patientReader{r: in.request.BodyReader(), request: in.request, control: controlOf(in.request), stall: snapshotStall}
	body := &io.LimitedReader{R: arriving, N: maxSnapshotFile}
	file, err := snapshotfile.Open(body)
	if err != nil {
		return nil, refusedSnapshot(err, body), nil
	}
	staged := &stagedSnapshot{}
	packer, err := fleet.NewRestorePacker(func(piece []byte) error {
		if len(staged.pieces) == fleet.MaxRestorePieces {
			return errTooManyPieces
		}
		staged.pieces = append(staged.pieces, bytes.Clone(piece))
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	scratch, err := fleet.New()
	if err != nil {
		return nil, nil, err
	}
	if err := scratch.Restore(io.TeeReader(file, packer)); err != nil {
		if _, damage := io.Copy(io.Discard, file); damage != nil {
			err = damage
		}
		return nil, refusedSnapshot(err, body), nil
	}
	if err := packer.Close(); err != nil {
		return nil, refusedSnapshot(err, body), nil
	}
	summary, whole := file.Summary()
	if !whole || summary.Index != scratch.Index() {
		return nil, refusedSnapshot(snapshotfile.ErrDamaged, body), nil
	}
	staged.summary = summary
	stored, ok := scratch.View().CA()
	if !ok {
		return nil, invalid("", "the snapshot has no built-in CA: it is of a coordinator that was not ready", "take one of a later time"), nil
	}
	err = s.Authority.Check(stored)
	switch {
	case in.DryRun && err != nil:
		staged.refusal = sealedOtherwise(err, summary)
	case err != nil:
		return nil, sealedOtherwise(err, summary), nil
	}
	if in.DryRun {
		staged.view = scratch.View()
	}
	return staged, nil, nil
}

const mendFile = "give a file that \"certctl snapshot inspect\" finds good"

var errTooManyPieces = errors.New("the snapshot is too large to restore to a running cluster")

// refusedSnapshot says what is wrong with a file.
func refusedSnapshot(err error, body *io.LimitedReader) *Problem {
	switch {
	case body.N <= 0, errors.Is(err, errTooManyPieces):
		return newProblem(wire.CodeBodyTooLarge, "", fmt.Sprintf("the snapshot is larger than %d octets, packed", int64(maxSnapshotFile)), "restore it to a coordinator of its own")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return withStatus(http.StatusRequestTimeout, invalid("", "the snapshot did not arrive in time", "send it again"))
	case errors.Is(err, snapshotfile.ErrForeign), errors.Is(err, snapshotfile.ErrEncrypted), errors.Is(err, snapshotfile.ErrCutShort),
		errors.Is(err, snapshotfile.ErrDamaged), errors.Is(err, snapshotfile.ErrNewer),
		errors.Is(err, fleet.ErrSnapshotDamaged), errors.Is(err, fleet.ErrSnapshotNewer):
		return invalid("", err.Error(), mendFile)
	}
	return invalid("", "the snapshot did not arrive whole: "+err.Error(), "send it again")
}

// sealedOtherwise says which seal key is needed.
func sealedOtherwise(err error, summary snapshotfile.Summary) *Problem {
	if !errors.Is(err, ca.ErrWrongSealKey) {
		return invalid("", "the built-in CA in the snapshot cannot be used: "+err.Error(), mendFile)
	}
	return newProblem(wire.CodeConflict, "", err.Error(), fmt.Sprintf(
		"found a cluster with the seal key that the snapshot needs (%s), with CERTCTL_CA_SEAL_KEY_FILE and \"certctl-coordinator init\" on an empty data directory, and restore it there", listed(summary.SealKeys)))
}

func listed(ids []string) string {
	if len(ids) == 0 {
		return "unknown"
	}
	return "seal key " + ids[0]
}

func busySnapshot(detail string) *Problem {
	return &Problem{*problem.Later(wire.CodeOverloaded, detail, 5*time.Second)}
}

func described(s snapshotfile.Summary) resource.Snapshot {
	out := resource.Snapshot{
		ClusterID: s.ClusterID, NodeID: s.NodeID, Index: s.Index, Time: s.Time.UTC(), Version: s.Version, Level: s.Level,
		SealKeys: []string{}, Rows: map[string]int{}, SHA256: s.SHA256,
	}
	if s.SealKeys != nil {
		out.SealKeys = s.SealKeys
	}
	if s.Rows != nil {
		out.Rows = s.Rows
	}
	return out
}
