package cli

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/api/resource"
	"github.com/certctl/certctl/coordinator/apitoken"
	"github.com/certctl/certctl/coordinator/client"
	"github.com/certctl/certctl/coordinator/daemon/daemontest"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/logring"
)

// nodes is a cluster and a person with a login for each node.
type nodes struct {
	*person
	*daemontest.Cluster
	token apitoken.Token
	roots string
}

func startNodes(t *testing.T, size int) *nodes {
	c := &nodes{person: newPerson(t), Cluster: daemontest.Start(t, size, func(int) daemontest.Options {
		return daemontest.Options{Log: slog.New(slog.NewTextHandler(new(logring.Ring), nil))}
	})}
	dir := c.Nodes[0].Settings.DataDir
	text, err := os.ReadFile(filepath.Join(dir, server.AdminTokenFile))
	require.NoError(t, err)
	c.token, err = apitoken.Parse(string(text))
	require.NoError(t, err)
	root, err := os.ReadFile(filepath.Join(dir, server.RootFile))
	require.NoError(t, err)
	c.roots = string(root)
	for _, n := range c.Nodes {
		c.does("login", "--context", n.ID, "--server", n.URL(), "--token-file", filepath.Join(dir, server.AdminTokenFile), "--ca-file", filepath.Join(dir, server.RootFile))
	}
	return c
}

// client asks one node.
func (c *nodes) client(t *testing.T, n *daemontest.Node, written *client.Written) *client.Client {
	t.Helper()
	asking, err := client.New(client.Config{Servers: []string{n.URL()}, Token: c.token, Roots: c.roots, Written: written})
	require.NoError(t, err)
	t.Cleanup(asking.Close)
	return asking
}

// await repeats a command until it says something.
func (c *nodes) await(t *testing.T, says func(stdout string, status int) bool, args ...string) {
	t.Helper()
	var last string
	require.Eventually(t, func() bool {
		stdout, stderr, status := c.run(args...)
		last = stdout + stderr
		return says(stdout, status)
	}, 2*time.Minute, 50*time.Millisecond, "certctl %v: %s", args, &last)
}

func healthy(_ string, status int) bool { return status == 0 }

// What operators see and do on any node of a real cluster, while all is well and
// as nodes go away one by one.
func TestNodesOfACluster(t *testing.T) {
	c := startNodes(t, 3)
	ids := []string{c.Nodes[0].ID, c.Nodes[1].ID, c.Nodes[2].ID}
	for _, id := range ids {
		c.await(t, healthy, "cluster", "health", "--context", id)
		// Each node tells the others about itself soon after it has become a member.
		c.await(t, func(stdout string, _ int) bool { return strings.Count(stdout, `"url": "https://`) == 3 }, "cluster", "members", "--output", "json", "--context", id)
		h := reads[resource.ClusterHealth](c.person, "cluster", "health", "--context", id)
		assert.Equal(t, id, h.AnsweredBy)
		assert.Equal(t, []int{3, 3, 2, 1}, []int{h.Voters, h.VotersWorking, h.Quorum, h.FailureTolerance})
		m := reads[resource.Members](c.person, "cluster", "members", "--context", id)
		require.Len(t, m.Items, 3)
		for _, one := range m.Items {
			assert.Equal(t, resource.MemberHealthy, one.Health, one.Reason)
			assert.True(t, one.Voter)
			assert.False(t, one.CertificateNotAfter.IsZero())
		}
	}

	// The trail of each is whole, once it has those facts of the others that are of before it
	// joined, and what one has is what the others know.
	c.await(t, healthy, "audit", "verify", "--nodes", "all")
	trails := reads[verification](c.person, "audit", "verify", "--nodes", "all").Items
	require.Len(t, trails, 3)
	for i, one := range trails {
		assert.Equal(t, []any{ids[i], uint64(1)}, []any{one.Node, one.Report.ChainedFrom})
		assert.NotEmpty(t, one.Report.Anchors)
	}
	assert.Equal(t, ids[1], reads[verification](c.person, "audit", "verify", "--nodes", ids[1]).Items[0].Node)

	for _, id := range ids {
		shown := reads[shownContext](c.person, "context", "show", id)
		assert.ElementsMatch(t, c.urls(), shown.Servers, "one login is enough to know all nodes")
		assert.Equal(t, shown.Server, shown.Servers[0])
	}
	t.Run("reads see what was written on another node", c.readYourWrites)
	t.Run("a diagnosis has all nodes and no secrets", c.diagnosed)

	t.Run("the leadership moves", func(t *testing.T) {
		leader := reads[resource.Members](c.person, "cluster", "members").Leader
		next := ids[(slices.Index(ids, leader)+1)%3]
		c.does("cluster", "transfer", next, "--context", leader)
		c.await(t, func(stdout string, _ int) bool { return strings.Contains(stdout, `"leader": "`+next+`"`) }, "cluster", "health", "--output", "json", "--context", leader)
	})

	// The first one stays, whoever leads.
	gone := c.Nodes[2]
	gone.Stop()
	c.await(t, func(stdout string, status int) bool {
		return status == 1 && strings.Contains(stdout, "if one more fails, nothing can be stored") && strings.Contains(stdout, gone.ID+" does not answer "+ids[0])
	}, "cluster", "health", "--context", ids[0])
	said := c.fails(1, "cluster", "remove", ids[1], "--yes", "--context", ids[0])
	assert.Contains(t, said, "[conflict]", "what is left could store nothing")
	file := filepath.Join(c.home, "one-is-gone.tar.gz")
	assert.Contains(t, c.does("cluster", "diagnose", "--file", file, "--context", ids[0]), "NOT COMPLETE")

	c.goesOn(t, gone)
	stdout, stderr, status := c.run("cluster", "remove", gone.ID, "--yes", "--context", gone.ID)
	require.Zero(t, status, stderr)
	assert.NotContains(t, stdout, gone.ID)
	assert.Equal(t, 1, strings.Count(stderr, "does not answer"), "one command line goes on with the node that has answered: %s", stderr)
	c.await(t, func(string, int) bool {
		return len(reads[shownContext](c.person, "context", "show", ids[0]).Servers) == 2
	}, "whoami", "--context", ids[0])
	m := reads[resource.Members](c.person, "cluster", "members", "--context", ids[1])
	require.Len(t, m.Items, 2)
	for _, id := range ids[:2] { // the journal is written a moment later
		c.await(t, func(stdout string, _ int) bool { return strings.Contains(stdout, `"node.removed"`) },
			"audit", "list", "--kind", "node.removed", "--output", "json", "--context", id)
		removals := reads[listOf[resource.Event]](c.person, "audit", "list", "--kind", "node.removed", "--context", id).Items
		require.Len(t, removals, 1)
		assert.Equal(t, []string{"api_token:" + c.token.ID, gone.ID}, []string{removals[0].Actor, removals[0].Object}, "who asked for it did it")
	}
	c.await(t, func(stdout string, status int) bool {
		return status == 1 && strings.Contains(stdout, "2 voters bear the failure of as many as 1 would") && !strings.Contains(stdout, "CRITICAL")
	}, "cluster", "health", "--context", ids[0])

	t.Run("without a leader", func(t *testing.T) { c.withoutLeader(t, c.Nodes[0], c.Nodes[1]) })
}

func (c *nodes) urls() []string {
	var urls []string
	for _, n := range c.Nodes {
		urls = append(urls, n.URL())
	}
	return urls
}

// goesOn asks with a context whose own node is gone.
func (c *nodes) goesOn(t *testing.T, gone *daemontest.Node) {
	stdout, stderr, status := c.run("status", "--context", gone.ID)
	require.Zero(t, status, stderr)
	assert.Regexp(t, `^certctl: \Q`+gone.URL()+`\E does not answer \(.*connection refused\); asking https://\S+\n$`, stderr)
	assert.Regexp(t, `answered by: +node[12] \(https://`, stdout)
	_, stderr, status = c.run("api-token", "create", "--name", "x", "--role", "viewer", "--context", gone.ID)
	assert.Zero(t, status, stderr)
	assert.Contains(t, c.fails(2, "whoami", "--server", gone.URL(), "--context", gone.ID), "cannot be reached", "who names a node means that one")
	stdout, stderr, _ = c.run("__complete", "--context", gone.ID, "cluster", "transfer", "")
	assert.Contains(t, stdout, c.Nodes[0].ID+"\t")
	assert.NotContains(t, stderr, "does not answer", "nothing is said while somebody types")

	dir := c.Nodes[0].Settings.DataDir
	args := []string{"--token-file", filepath.Join(dir, server.AdminTokenFile), "--ca-file", filepath.Join(dir, server.RootFile)}
	stdout, stderr, status = c.run(append([]string{"login", "--context", "several", "--server", gone.URL(), "--server", c.Nodes[1].URL()}, args...)...)
	require.Zero(t, status, stderr)
	assert.Contains(t, stderr, "it is kept in the context all the same")
	assert.Contains(t, stdout, "logged in to "+gone.URL()+" and "+c.Nodes[1].URL())
	assert.Contains(t, stdout, "learned of the cluster's other nodes: "+c.Nodes[0].URL())
	assert.Equal(t, []string{gone.URL(), c.Nodes[1].URL(), c.Nodes[0].URL()}, reads[shownContext](c.person, "context", "show").Servers)
	for _, url := range c.urls() {
		assert.Contains(t, c.does("context", "list"), url)
		assert.Contains(t, c.does("context", "show"), url)
	}
	c.does("context", "remove", "several")
	c.does("context", "use", c.Nodes[0].ID)

	t.Setenv("CERTCTL_SERVER_URL", gone.URL()+" , "+c.Nodes[1].URL())
	stdout, stderr, status = c.run(append([]string{"whoami"}, args...)...)
	require.Zero(t, status, stderr)
	assert.Contains(t, stdout, c.token.ID)
	assert.Contains(t, stderr, "asking "+c.Nodes[1].URL())
	t.Setenv("CERTCTL_SERVER_URL", "")
}

// readYourWrites writes on one node and reads on another one, in turn, and never
// sees the state of before.
func (c *nodes) readYourWrites(t *testing.T) {
	written := new(client.Written)
	var asking []*client.Client
	for _, n := range c.Nodes {
		asking = append(asking, c.client(t, n, written))
	}
	for i := range 30 {
		writer, reader := asking[i%3], asking[(i+1+i/3%2)%3]
		made, err := writer.CreateAPIToken(t.Context(), resource.CreateAPIToken{Name: strconv.Itoa(i), Role: "viewer"})
		require.NoError(t, err)
		page, err := reader.ListAPITokens(t.Context(), client.ListAPITokensParams{Limit: 1})
		require.NoError(t, err)
		require.Len(t, page.Items, 1)
		require.Equal(t, made.ID, page.Items[0].ID, "round %d: the newest token is not there", i)
		_, err = reader.RevokeAPIToken(t.Context(), client.RevokeAPITokenParams{ID: made.ID})
		require.NoError(t, err)
	}
	consistent := reads[resource.Identified](c.person, "whoami", "--consistent", "--context", c.Nodes[2].ID)
	assert.Equal(t, c.token.ID, consistent.TokenID)
}

// diagnosed makes a bundle on a node that does not lead, and looks for everything
// that must not be in it.
func (c *nodes) diagnosed(t *testing.T) {
	leader := reads[resource.Members](c.person, "cluster", "members").Leader
	follower := c.Nodes[slices.IndexFunc(c.Nodes, func(n *daemontest.Node) bool { return n.ID != leader })]
	secrets := []string{secretOf(c.token.Reveal()), "PRIVATE KEY"}
	joining := reads[resource.CreatedJoinToken](c.person, "cluster", "join-token", "create")
	secrets = append(secrets, strings.Split(joining.Token, ".")[2])
	enrolling := reads[resource.CreatedEnrollmentToken](c.person, "token", "create", "--names", "x.example.com")
	secrets = append(secrets, secretOf(enrolling.Token))
	for _, n := range c.Nodes {
		key, err := os.ReadFile(filepath.Join(n.Settings.DataDir, "seal.key"))
		require.NoError(t, err)
		secrets = append(secrets, strings.TrimSpace(string(key)))
	}
	c.fails(1, "whoami", "--token-file", c.write("bad-token", "cta1.abcdefgh."+strings.Repeat("B", 43)))
	secrets = append(secrets, strings.Repeat("B", 43))

	file := filepath.Join(c.home, "case.tar.gz")
	held := reads[diagnosis](c.person, "cluster", "diagnose", "--file", file, "--context", follower.ID)
	assert.Equal(t, follower.ID, held.AnsweredBy)
	require.Len(t, held.Nodes, 3)
	files := readBundle(t, file)
	for _, n := range held.Nodes {
		assert.Empty(t, n.Error)
		assert.Len(t, n.Files, 5)
		part := func(name string) string { return files["nodes/"+n.Node+"/"+name] }
		var report struct {
			Raft struct {
				Members []any `json:"members"`
			} `json:"raft"`
			Ready bool `json:"ready"`
		}
		require.NoError(t, json.Unmarshal([]byte(part("report.json")), &report))
		assert.Len(t, report.Raft.Members, 3)
		assert.True(t, report.Ready)
		assert.Contains(t, part("settings.yaml"), "node_id: "+n.Node)
		assert.Contains(t, part("metrics.txt"), "certctl_raft_term")
		assert.Contains(t, part("log.jsonl"), "coordinator starts")
		assert.Contains(t, part("goroutines.txt"), "goroutine profile:")
	}
	for name, text := range files {
		for i, secret := range secrets {
			assert.NotContains(t, text, secret, "secret %d in %s", i, name)
		}
	}
}

func readBundle(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	uncompressed, err := gzip.NewReader(f)
	require.NoError(t, err)
	files := map[string]string{}
	for archive := tar.NewReader(uncompressed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		text, err := io.ReadAll(archive)
		require.NoError(t, err)
		_, name, _ := strings.Cut(header.Name, "/")
		files[name] = string(text)
	}
}

// withoutLeader stops one of two nodes: the other one goes on telling what it
// knows, and says what it cannot do.
func (c *nodes) withoutLeader(t *testing.T, stays, goes *daemontest.Node) {
	goes.Stop()
	c.await(t, func(stdout string, status int) bool {
		return status == 1 && strings.Contains(stdout, "NOTHING CAN BE STORED") && strings.Contains(stdout, "recover")
	}, "cluster", "health", "--context", stays.ID)
	assert.Contains(t, c.does("api-token", "list", "--context", stays.ID), c.token.ID)
	said := c.fails(1, "api-token", "list", "--consistent", "--context", stays.ID)
	assert.Contains(t, said, "no leader has confirmed it")
	assert.Contains(t, said, "certctl cluster health")

	said = c.fails(1, "api-token", "create", "--name", "x", "--role", "viewer", "--context", stays.ID)
	assert.Contains(t, said, "nothing was changed: the cluster has no leader at the moment")
	assert.Contains(t, c.does("cluster", "diagnose", "--file", filepath.Join(c.home, "no-leader.tar.gz"), "--context", stays.ID), stays.ID)
}
