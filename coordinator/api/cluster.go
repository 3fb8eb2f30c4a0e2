package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/cluster"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/coordinator/history"
	"github.com/certctl/certctl/coordinator/problem"
	"github.com/certctl/certctl/shared/backoff"
	"github.com/certctl/certctl/shared/wire"
)

// Cluster asks the members how they stand. *standing.Service is one.
type Cluster interface {
	Members(ctx context.Context) resource.Members
	Health(ctx context.Context) resource.ClusterHealth
	// HistoryLost says what of the history would be lost without a member.
	HistoryLost(ctx context.Context, id string) history.Loss
	// Diagnose writes a gzipped tar archive for a support case.
	Diagnose(ctx context.Context, w io.Writer) error
}

type membersDocument struct {
	Body resource.Members
}

type clusterHealthDocument struct {
	Body resource.ClusterHealth
}

type transferLeadership struct {
	Body resource.TransferLeadership
}

type removeMember struct {
	ID        string `path:"id" maxLength:"64" doc:"Id of the node."`
	PrevIndex uint64 `query:"prev_index" doc:"configuration_index of the members that the request was made for. If they have changed since, nothing is done. Absent: whatever they are."`
	Force     bool   `query:"force" doc:"Remove it even if no other member has a part of the history that it has, or may have."`
}

// becauseAsked is why what is shown of the members has no entity tag.
const becauseAsked = "the members are asked anew each time"

func (s *server) registerCluster(api huma.API) {
	const path = "/api/v1/cluster"
	tags := []string{"cluster"}
	huma.Register(api, fleetWide(untagged(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "list-members", Method: http.MethodGet, Path: path + "/members", Tags: tags,
		Summary: "List the members of the cluster",
		Description: "Each member is asked how it stands, and has three seconds to answer. The list is the view of the node that " +
			"answers; it needs no leader.",
	}), becauseAsked), ofTheCluster), s.listMembers)
	huma.Register(api, fleetWide(untagged(needs(fleet.RoleViewer, huma.Operation{
		OperationID: "show-cluster-health", Method: http.MethodGet, Path: path + "/health", Tags: tags,
		Summary:     "Say whether the cluster is well, and what to do if it is not",
		Description: "By what the members answer, as list-members asks them. The status is 200 whatever the answer is; see healthy.",
	}), becauseAsked), ofTheCluster), s.showClusterHealth)
	huma.Register(api, fleetWide(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "transfer-leadership", Method: http.MethodPost, Path: path + "/transfer", Tags: tags,
		Summary:     "Let another member lead",
		Description: "Changes wait for a moment and are not lost. The answer is the members after it.",
	}), ofTheCluster), s.transferLeadership)
	huma.Register(api, fleetWide(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "remove-member", Method: http.MethodDelete, Path: path + "/members/{id}", Tags: tags,
		Summary: "Remove a member for good",
		Description: "The node counts for nothing any more, and the others talk to it no more. It is refused when those that remain " +
			"could store nothing, and, without force, when none of them has a part of the history that the member has, or may have if it does not answer. A leader hands over first. The node that gets the request leaves, as by leave-cluster, and ends. A node that was let in and never became a member is forgotten. The answer is the members after it.",
	}), ofTheCluster), s.removeMember)
	huma.Register(api, fleetWide(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "rotate-cluster-ca", Method: http.MethodPost, Path: path + "/rotate-ca", Tags: tags,
		Summary: "Begin to replace the CA of the connections between nodes",
		Description: "A new root is published; when all members trust it, it signs; when all members have certificates of it, the old one goes. " +
			"This goes on by itself, and show-cluster-health says how far it is.",
	}), ofTheCluster), s.rotateClusterCA)
	archive := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	huma.Register(api, fleetWide(untagged(needs(fleet.RoleAdmin, huma.Operation{
		OperationID: "diagnose-cluster", Method: http.MethodGet, Path: path + "/diagnosis", Tags: tags,
		Summary: "Make a bundle for a support case",
		Description: "A gzipped tar archive of what every member that answers knows about itself: version, configuration without secrets, " +
			"readiness, Raft, journal, snapshots, metrics, the newest lines of the log, goroutines. README.txt in it says which members did " +
			"not answer. It takes half a minute at most and needs no leader. One is made at a time.",
		Responses: map[string]*huma.Response{"200": {
			Description: "The bundle.", Content: map[string]*huma.MediaType{diagnosisType: {Schema: archive}},
		}},
	}), becauseAsked), ofTheCluster), s.diagnoseCluster)
	s.registerLeave(api)
	s.registerJoinTokens(api)
}

const diagnosisType = "application/gzip"

func (s *server) listMembers(ctx context.Context, _ *struct{}) (*membersDocument, error) {
	return &membersDocument{Body: s.Cluster.Members(ctx)}, nil
}

func (s *server) showClusterHealth(ctx context.Context, _ *struct{}) (*clusterHealthDocument, error) {
	return &clusterHealthDocument{Body: s.Cluster.Health(ctx)}, nil
}

// nodeList is nodeURLs as answers tell them. Each answer does, and the nodes seldom
// change.
func (s *server) nodeList() string {
	version := s.Node.State().View().Version(fleet.TableNodes)
	if told := s.told.Load(); told != nil && told.version == version {
		return told.urls
	}
	// Nodes that come in between are told by the next answer: they have a later version.
	told := &toldNodes{version: version, urls: strings.Join(s.nodeURLs(), " ")}
	s.told.Store(told)
	return told.urls
}

// toldNodes are the URLs of the nodes as of a version of their table.
type toldNodes struct {
	version uint64
	urls    string
}

// nodeURLs are where the API of this node is, and of the others, as far as they have
// told it.
func (s *server) nodeURLs() []string {
	urls := []string{s.EnrollmentURL}
	own, _ := wire.ParseServer(s.EnrollmentURL)
	var others []string
	for _, node := range s.Node.State().View().ClusterNodes() {
		others = append(others, node.URL)
	}
	for _, other := range wire.CleanServers(others) {
		if other != own {
			urls = append(urls, other)
		}
	}
	return urls
}

// membershipPatience bounds a change of the members: an election may come in
// between.
const membershipPatience = 20 * time.Second

func (s *server) transferLeadership(ctx context.Context, in *transferLeadership) (*membersDocument, error) {
	ctx, cancel := context.WithTimeout(ctx, membershipPatience)
	defer cancel()
	before, _ := s.Node.Leader()
	if err := s.noteTransfer(ctx, before, in.Body.To); err != nil {
		return nil, err
	}
	alone := in.Body.To == before
	if members, _ := s.Node.Members(); len(members) < 2 {
		alone = true
	}
	for attempt := 1; ; attempt++ {
		if err := s.Node.Transfer(ctx, in.Body.To); err != nil {
			return nil, s.membershipProblem("transfer the leadership", "to", err)
		}
		if alone || s.awaitLeader(ctx, in.Body.To, before) {
			break
		}
		// Whoever got it could not hold it, and it went elsewhere.
		if attempt == transferAttempts || ctx.Err() != nil {
			leader, _ := s.Node.Leader()
			p := unavailable(fmt.Sprintf("the leadership was handed over %d times, and nobody who was to have it kept it: now %s leads", attempt, cmp.Or(leader, "no node that is known")))
			p.Mend = "\"certctl cluster health\" says which nodes are slow or cut off; send the request again when they are well"
			return nil, p
		}
	}
	// What the members say of each other may have been asked before this node was told.
	settled, cancelled := context.WithTimeout(ctx, followPatience)
	defer cancelled()
	for attempt := 1; ; attempt++ {
		answer := &membersDocument{Body: s.Cluster.Members(ctx)}
		if alone || handedOver(answer.Body.Leader, in.Body.To, before) || backoff.Wait(settled, followRetry.Delay(attempt, nil)) != nil {
			return answer, nil
		}
	}
}

// noteTransfer puts it into the audit trail, unless a member runs a version that
// cannot: an upgrade is when the leadership has to move.
func (s *server) noteTransfer(ctx context.Context, from, to string) error {
	command, err := fleet.NewCommand(s.Now(), fleet.NoteTransfer{Actor: actorOf(ctx), From: from, To: to})
	if err != nil {
		return s.fail("make a command", err)
	}
	const doing = "note that the leadership is to be transferred"
	results, err := s.Node.Propose(ctx, command)
	if _, early := errors.AsType[*cluster.LevelError](err); early {
		s.Log.WarnContext(ctx, "the audit trail does not have who asked for a transfer of the leadership", "to", to, "err", err)
		return nil
	}
	if err != nil {
		return s.membershipProblem(doing, "to", err)
	}
	return s.refusal(results[0].Err())
}

// followPatience bounds how long the answer to a transfer waits for word of the
// new leader, which comes with its first message, and transferAttempts how often the
// leadership is handed over if that does not come.
const (
	followPatience   = 6 * time.Second
	transferAttempts = 3
)

var followRetry = backoff.Policy{Initial: 5 * time.Millisecond, Max: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.5}

// handedOver reports whether a leader is the one that somebody wished for, or another one
// than before if to is "".
func handedOver(leader, to, before string) bool {
	return leader != "" && (leader == to || to == "" && leader != before)
}

// awaitLeader reports whether this node hears of the leader that somebody wished
// for, or of another one than before if to is "".
func (s *server) awaitLeader(ctx context.Context, to, before string) bool {
	ctx, cancel := context.WithTimeout(ctx, followPatience)
	defer cancel()
	for attempt := 1; ; attempt++ {
		if id, _ := s.Node.Leader(); handedOver(id, to, before) {
			return true
		}
		if backoff.Wait(ctx, followRetry.Delay(attempt, nil)) != nil {
			return false
		}
	}
}

// removeMember changes the configuration first: a record without a member is
// forgotten when the request is repeated, and a member without a record would be
// one that nobody knows anything of.
func (s *server) removeMember(ctx context.Context, in *removeMember) (*membersDocument, error) {
	ctx, cancel := context.WithTimeout(ctx, membershipPatience)
	defer cancel()
	if !in.Force {
		if problem := losesHistory(in.ID, s.Cluster.HistoryLost(ctx, in.ID)); problem != nil {
			return nil, problem
		}
	}
	if in.ID == s.Node.ID() {
		return s.removeSelf(ctx, in)
	}
	err := s.Node.RemoveMember(ctx, in.ID, in.PrevIndex, actorOf(ctx))
	gone := errors.Is(err, cluster.ErrNoMember)
	if err != nil && !gone {
		return nil, s.membershipProblem("remove a member", "id", err)
	}
	_, known := s.Node.State().View().ClusterNode(in.ID)
	if gone && !known {
		return nil, s.membershipProblem("remove a member", "id", err)
	}
	if known {
		_, err := s.do(ctx, fleet.ForgetNode{Actor: actorOf(ctx), ID: in.ID})
		if rejected, ok := errors.AsType[*Problem](err); ok && rejected.Code == wire.CodeNotFound {
			err = nil // another one was quicker
		}
		if rejected, ok := errors.AsType[*Problem](err); ok && !gone && rejected.Status == http.StatusServiceUnavailable {
			// Not that nothing was changed, after which clients ask another node.
			err = unavailable("the member is removed, and it is not known whether its record is; the same request without prev_index is safe to repeat")
		}
		if err != nil {
			return nil, err
		}
	}
	return s.listMembers(ctx, nil)
}

// losesHistory refuses the removal of the last member that has a part of the history.
func losesHistory(id string, loss history.Loss) *Problem {
	if loss.Entries == 0 {
		return nil
	}
	detail, mend := lossOf(id, loss)
	return newProblem(wire.CodeConflict, "force", detail, mend+"; to lose them, give force=true (\"certctl cluster remove "+id+" --force\")")
}

// lossOf is what goes with a member, and how to keep it.
func lossOf(id string, loss history.Loss) (detail, mend string) {
	detail = fmt.Sprintf("no other member has the facts of %d log entries that %s has: a part of the history and of the audit trail would be lost", loss.Entries, id)
	mend = "wait until the others have them, which they fetch by themselves (\"certctl cluster health\" says how that stands)"
	if !loss.Answers {
		detail = fmt.Sprintf("no other member has the facts of %d log entries, and %s, which does not answer, may: a part of the history and of the audit trail would be lost", loss.Entries, id)
		mend = "start " + id + " until the others have them"
	}
	if len(loss.Silent) > 0 {
		detail += "; of the others, these do not answer: " + strings.Join(loss.Silent, ", ")
		mend += ", and bring those back that do not answer"
	}
	return detail, mend
}

// membershipProblem is the answer to a change of the members that was not made.
func (s *server) membershipProblem(doing, field string, err error) *Problem {
	if errors.Is(err, cluster.ErrNoMember) {
		p := notFound("no member of the cluster has this id", "list the members to see their ids")
		p.Field = field
		return p
	}
	return s.fail(doing, err)
}

func (s *server) rotateClusterCA(ctx context.Context, _ *struct{}) (*clusterHealthDocument, error) {
	stored, ok := s.Node.State().View().ClusterCA()
	if !ok {
		return nil, unavailable("the cluster's own CA is not made yet")
	}
	const doing = "begin the rotation of the cluster's CA"
	key, err := s.Authority.SealKey()
	if err != nil {
		return nil, s.fail(doing, err)
	}
	change, err := clusterca.Begin(stored, key, actorOf(ctx), s.Now())
	switch {
	case errors.Is(err, clusterca.ErrRotation):
		return nil, newProblem(wire.CodeConflict, "", "a rotation of the cluster's CA is under way",
			"it goes on by itself; \"certctl cluster health\" says which nodes it waits for")
	case err != nil:
		return nil, s.fail(doing, err)
	}
	if _, err := s.do(ctx, change); err != nil {
		return nil, err
	}
	return s.showClusterHealth(ctx, nil)
}

// A diagnosis is written in full before any of it is sent, so that one that breaks
// off is not taken for a whole one.
type diagnosis struct {
	ContentType string `header:"Content-Type" doc:"application/gzip."`
	Disposition string `header:"Content-Disposition" doc:"A name for the file."`
	Body        []byte
}

func (s *server) diagnoseCluster(ctx context.Context, _ *struct{}) (*diagnosis, error) {
	if !s.diagnosing.TryLock() {
		return nil, &Problem{*problem.Later(wire.CodeOverloaded, "another diagnosis is being made", 10*time.Second)}
	}
	defer s.diagnosing.Unlock()
	var out bytes.Buffer
	if err := s.Cluster.Diagnose(ctx, &out); err != nil {
		return nil, s.fail("make a diagnosis", err)
	}
	name := "certctl-diagnosis-" + s.Now().UTC().Format("20060102T150405Z") + ".tar.gz"
	return &diagnosis{ContentType: diagnosisType, Disposition: fmt.Sprintf("attachment; filename=%q", name), Body: out.Bytes()}, nil
}
